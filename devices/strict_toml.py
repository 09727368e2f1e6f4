"""TOML files read as strict models: what is wrong is refused with one line.

It names the file, the line and, for an unknown key, the nearest valid one.
"""

import difflib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

_Model = TypeVar("_Model", bound=BaseModel)

LEAST_LIKENESS = 0.5
"""How much a valid key must have in common with an unknown one to be what was meant."""


class ConfigurationError(ValueError):
    """A configuration cannot be used; one line says file, line, what, and what was expected."""


class Misplaced(ValueError):
    """A value that does not fit others, and where it stands: the keys that lead to it."""

    def __init__(self, location: Sequence[str], message: str) -> None:
        super().__init__(f"{'.'.join(location)} {message}")
        self.location = tuple(location)


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, wrong types and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def read_toml(path: Path, model: type[_Model]) -> _Model:
    """Read a TOML file as a strict model.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, is not TOML, is one of another kind, has an unknown key, lacks one, or
        holds a value of the wrong type or out of range: one line with file and line number.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as refusal:
        raise ConfigurationError(f"{path}: {refusal.strerror}") from refusal
    except UnicodeDecodeError as refusal:
        raise ConfigurationError(f"{path}: not a text file in UTF-8") from refusal
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as refusal:
        raise ConfigurationError(f"{path}: not TOML: {refusal}") from refusal
    try:
        return model.model_validate(document)
    except ValidationError as refusal:
        found, expected = kind_of(document), kind_of(model.model_fields)
        if found and found != expected:
            raise ConfigurationError(f"{path}: is {found}, expected {expected}") from refusal
        first, line = min(
            ((error, line_of(text, _location(error))) for error in refusal.errors()),
            # An unknown key first: it explains the missing one of the same section.
            key=lambda pair: (pair[0]["type"] != "extra_forbidden", pair[1]),
        )
        raise ConfigurationError(f"{path}:{line}: {explain(first, model)}") from refusal


def kind_of(keys: Iterable[str]) -> str:
    """Tell by the keys of a file what it is; nothing if they do not say.

    >>> kind_of(["name", "axes"]), kind_of(["tilts"]), kind_of(["name"])
    ('a beamline configuration', 'a measurement', '')
    """
    return next((kind for kind, signs in _SIGNS.items() if signs.intersection(keys)), "")


_SIGNS = {
    "a beamline configuration": {"axes", "control_systems"},
    "a measurement": {"tilts", "flats", "darks", "azimuths_deg"},
}


def explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Say in one line what a strict model refused and what it expected."""
    *section, key = [*error["loc"]] or [""]
    what = repr(key)
    if isinstance(key, int):  # one of a list
        *section, name = section
        key = what = f"number {key + 1} of {name}"
    where = f" in {_told_section(section)}" if section else ""
    value = repr(_lists(error["input"]))
    match error["type"]:
        case "extra_forbidden":
            valid = _keys_of(model, section)
            nearest = difflib.get_close_matches(str(key), valid, n=1, cutoff=LEAST_LIKENESS)
            if nearest:
                return f"unknown key {what}{where}; the nearest valid key is {nearest[0]!r}"
            return f"unknown key {what}{where}; valid keys are {', '.join(valid)}"
        case "missing":
            return f"{what} is missing{where}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "tuple_type" if isinstance(error["input"], dict):
            return f"[{key}]{where}: expected a list of sections; write [[{key}]]"
        case "tuple_type":
            example = f"[{value}]" if what == key else f"{key} = [{value}]"
            return f"{key} = {value}{where}: expected a list, such as {example}"
        case "model_type":
            return f"{key} = {value}{where}: expected a section"
        case "too_long":
            return f"{key} = {value}{where}: expected {error['ctx']['max_length']} values"
    return f"{key} = {value}{where}: {error['msg'].replace('Input should be', 'expected', 1)}"


def _lists(value: object) -> object:
    """A file has lists where a value that does not change has tuples."""
    return [_lists(each) for each in value] if isinstance(value, tuple) else value


def _told_section(section: Sequence[int | str]) -> str:
    """Name a section as it stands in a file.

    >>> _told_section(("control_systems", "ca")), _told_section(("tilts", 1))
    ('[control_systems.ca]', '[[tilts]], number 2')
    """
    names = ".".join(str(part) for part in section if isinstance(part, str))
    numbers = [part + 1 for part in section if isinstance(part, int)]
    return f"[[{names}]], number {numbers[-1]}" if numbers else f"[{names}]"


def line_of(text: str, location: Sequence[int | str]) -> int:
    """Return the line, from 1, on which a TOML key stands, or the section that should hold it.

    >>> line_of("a = 1\\n[b.c]\\nd = 2\\n", ("b", "c", "d"))
    3
    >>> line_of("[[e]]\\nf = 1\\n[[e]]\\nf = 2\\n", ("e", 1, "f"))
    4
    """
    wanted = tuple(str(part) for part in location)
    best_line, best_length = 1, 0
    section: tuple[str, ...] = ()
    tables: Counter[tuple[str, ...]] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]", line):
            section = found = _split_key(header[2])
            if header[1] == "[[":
                section = (*found, str(tables[found]))
                found = found if wanted == found else section
                tables[_split_key(header[2])] += 1
        elif assignment := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            found = section + _split_key(assignment[1])
        else:
            continue
        if len(found) > best_length and found == wanted[: len(found)]:
            best_line, best_length = number, len(found)
    return best_line


def _location(error: ErrorDetails) -> tuple[int | str, ...]:
    cause = error.get("ctx", {}).get("error")
    return (*error["loc"], *(cause.location if isinstance(cause, Misplaced) else ()))


def _split_key(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _keys_of(model: type[BaseModel], section: Sequence[int | str]) -> list[str]:
    current: Any = model
    for part in section:
        if isinstance(part, int):  # one of a list of sections
            continue
        if get_origin(current) is dict:  # sections of any name
            current = get_args(current)[1]
        else:
            current = _section(current.model_fields[part].annotation)
    return list(current.model_fields)


def _section(annotation: Any) -> Any:
    """Return the model, or the dictionary of models, that a field is or may be."""
    candidates = [annotation]
    for each in candidates:  # a model may stand deep within: an annotated tuple of them, say
        candidates += get_args(each)
    return next(
        each
        for each in candidates
        if get_origin(each) is dict or (isinstance(each, type) and issubclass(each, BaseModel))
    )
