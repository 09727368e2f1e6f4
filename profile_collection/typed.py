"""Functions as an operator types them: with the signature and the help of what they do; a mistake is one line."""

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mistral_txm.plans import Measurement, PlanError, load_measurement
from mistral_txm.plans.measurement import presets


def typed(
    function: Callable[..., Any],
    like: Callable[..., Any] | None = None,
    *,
    without: Sequence[str] = (),
    example: str = "",
) -> Callable[..., Any]:
    """Return a function for the prompt.

    A measurement may be given as a file or by the name of one that is packaged, as `summary` takes it.

    Parameters
    ----------
    function
        What is called.
    like
        Whose signature and help it has; by default its own.
    without
        Names of parameters that `function` does not take, or has already.
    example
        How it is typed, for the help.
    """
    model = function if like is None else like
    name = model.__name__
    signature = _signature(model, without)

    @functools.wraps(model)
    def as_typed(*arguments: Any, **options: Any) -> Any:
        try:
            bound = signature.bind(*arguments, **options)
        except TypeError as refusal:
            raise PlanError(_refusal(name, signature, arguments, str(refusal))) from None
        if "instrument" in bound.arguments and not _is_instrument(bound.arguments["instrument"]):
            raise PlanError(_refusal(name, signature, arguments, "instrument: not the instrument"))
        if "measurement" in bound.arguments:
            bound.arguments["measurement"] = _measurement(bound.arguments["measurement"], name)
        if "measurements" in bound.arguments:
            bound.arguments["measurements"] = [
                _measurement(each, name) for each in bound.arguments["measurements"]
            ]
        return function(*bound.args, **bound.kwargs)

    del as_typed.__wrapped__
    as_typed.__annotations__ = {}
    as_typed.__signature__ = signature  # type: ignore[attr-defined]  # read by inspect
    as_typed.__doc__ = _help(inspect.getdoc(model) or "", without, example)
    as_typed.__module__ = __name__
    as_typed.__qualname__ = name
    return as_typed


def _signature(model: Callable[..., Any], without: Sequence[str]) -> inspect.Signature:
    """Return the parameters that are left, without annotations: their names carry the units."""
    left = [
        each.replace(annotation=inspect.Parameter.empty)
        for name, each in inspect.signature(model).parameters.items()
        if name not in without
    ]
    return inspect.Signature(left)


def _help(text: str, without: Sequence[str], example: str) -> str:
    """Return a docstring without some of its parameters, and with an example behind its first paragraph.

    >>> text = "Expose.\\n\\nParameters\\n----------\\ncat\\n    The catalog.\\nlong_s\\n    How long."
    >>> print(_help(text, ["cat"], "ct(long_s=1)"))
    Expose.
    <BLANKLINE>
        ct(long_s=1)
    <BLANKLINE>
    Parameters
    ----------
    long_s
        How long.
    """
    for name in without:
        text = re.sub(rf"^{name}\n(?: .*\n?)+", "", text, flags=re.M)
    text = re.sub(r"^Parameters\n-+\n\s*(?=^\w+\n-+$|\Z)", "", text, flags=re.M)
    first, _, rest = text.partition("\n\n")
    return "\n\n".join(part for part in (first, example and f"    {example}", rest) if part)


def _refusal(
    name: str, signature: inspect.Signature, arguments: Sequence[Any], refusal: str
) -> str:
    """Say what is wrong with what was typed."""
    first = next(iter(signature.parameters), "")
    if first == "instrument" and not (arguments and _is_instrument(arguments[0])):
        return f"{name}: the instrument comes first: RE({name}(instrument, ...))"
    return f"{name}: {refusal}; help({name}) says what it takes"


def _is_instrument(value: Any) -> bool:
    return hasattr(value, "configuration")


def _measurement(value: Any, name: str) -> Measurement:
    if isinstance(value, Measurement):
        return value
    if isinstance(value, str | Path):
        return load_measurement(value)
    raise PlanError(
        f"{name}: {value!r:.60} is no measurement; type a file ('film.toml'), or one of {', '.join(presets())}"
    )
