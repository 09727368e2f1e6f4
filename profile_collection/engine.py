"""The RunEngine as an operator has it: what it cannot run is refused in one line that says what to type."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bluesky import Msg, RunEngine

from mistral_txm.devices.strict_toml import Strict
from mistral_txm.plans import PlanError


class Engine(RunEngine):  # type: ignore[misc]  # bluesky is untyped
    """A RunEngine that looks at what it is given before it runs it."""

    def __call__(self, plan: Any = None, *arguments: Any, **metadata: Any) -> Any:
        """Run a plan.

        Raises
        ------
        PlanError
            If it is none, or another one is paused.
        """
        if self.state == "paused":
            raise PlanError("a plan is paused: RE.resume() goes on with it, RE.abort() ends it")
        if why := why_no_plan(plan):
            raise PlanError(why)
        return super().__call__(plan, *arguments, **metadata)


def why_no_plan(value: Any) -> str:
    """Say in one line why a value cannot be run; empty where it can.

    >>> why_no_plan(None)
    'RE: nothing to run; what prints by itself, such as status() or check(m), is typed without RE'
    >>> why_no_plan([Msg("null")]), why_no_plan(iter([]))
    ('', '')
    >>> why_no_plan(3)
    'RE: 3 is no plan; a plan is RE(vector_tomography(instrument, m)), say'
    """
    if value is None:
        return "RE: nothing to run; what prints by itself, such as status() or check(m), is typed without RE"
    if isinstance(value, Strict):  # a measurement: pydantic lets one go through its fields
        return (
            "RE: a measurement says what to take; to take it: RE(vector_tomography(instrument, m))"
        )
    if callable(value) and not isinstance(value, Iterable):
        name = getattr(value, "__name__", "plan")
        return f"RE: {name} lacks its parentheses: RE({name}(...)); help({name}) says what goes in there"
    is_no_plan = not isinstance(value, Iterable) or isinstance(value, str | Mapping)
    if isinstance(value, Sequence) and not all(isinstance(each, Msg) for each in value):
        is_no_plan = True
    if is_no_plan:
        return f"RE: {value!r:.60} is no plan; a plan is RE(vector_tomography(instrument, m)), say"
    return ""
