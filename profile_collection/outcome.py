"""What was done at the prompt, a line for each series or scan, told when the engine is idle again."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mistral_txm.devices.key import Key
from mistral_txm.profile_collection.measured import open_returns
from mistral_txm.services.verification import SeriesState, series_states

UNTOLD = ("snapshot",)
"""Plans that tell by themselves what they did."""


class Outcome:
    """Notes the runs of an engine that it is subscribed to, until they are told.

    Parameters
    ----------
    data
        The data folder.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._starts: dict[str, Mapping[str, Any]] = {}
        self._ended: list[Mapping[str, Any]] = []
        self._streams: dict[str, str] = {}
        self._exposures: Counter[str] = Counter()

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Take a document."""
        if name == "start":
            self._starts[document["uid"]] = document
        elif name == "descriptor" and document["name"] == "primary":
            self._streams[document["uid"]] = document["run_start"]
        elif name == "event" and document["descriptor"] in self._streams:
            self._exposures[self._streams[document["descriptor"]]] += 1
        elif name == "stop":
            self._ended.append(document)

    def tell(self, shutter: Callable[[], str]) -> list[str]:
        """Return what was done since it was told last, a line each; of what was ended early, also the shutter."""
        early = any(stop["exit_status"] != "success" for stop in self._ended)
        ended = [self._starts.pop(stop["run_start"]) for stop in self._ended]
        taken, self._ended = self._exposures, []
        self._exposures = Counter()
        of_open = {uid: run for uid, run in self._streams.items() if run in self._starts}
        self._streams = of_open
        return [*([f"ended early; {shutter()}"] if early else ()), *self._lines(ended, taken)]

    def _lines(self, ended: list[Mapping[str, Any]], taken: Mapping[str, int]) -> Iterator[str]:
        by_series: Counter[str] = Counter()
        name = {}
        for start in ended:
            if "series" in start:
                name[start["series"]] = start.get("edges", start)["series"]
            if "rejected_keys" in start:
                by_series[start["series"]] += 0
                count = told_exposures(len(start["rejected_keys"]))
                yield f"series {start['series']}: {count} rejected, for {start['reason']!r}"
            elif "series" in start:
                by_series[start["series"]] += taken.get(start["uid"], 0)
            elif start.get("plan_name") not in UNTOLD and "scan" in start:
                count = told_exposures(taken.get(start["uid"], 0))
                yield f"{start['plan_name']}: {count} taken, run {start['uid'][:8]}"
        for series, number in by_series.items():
            before = f"{told_exposures(number)} taken; " if number else ""
            for state in series_states(self._data, series):
                left = () if state.missing else open_returns(self._data).get(series, ())
                yield f"series {series}: {before}{standing_told(state, left, name[series])}"


def standing_told(state: SeriesState, left: Sequence[Key], name: str) -> str:
    """Say how a series stands, and what to type for the rest of the measurement of that name.

    `left` are the keys of returns to zero tilt that are still to be taken.
    """
    rejected = f" ({state.rejected} of them rejected)" if state.rejected else ""
    stands = f"{state.accepted} of {state.planned} exposures good"
    rest = f"RE(resume({short(name)!r})) takes the rest"
    if state.missing:
        return f"{stands}, {state.missing} missing{rejected}: {rest}"
    return f"{stands}; {return_told(left)}: {rest}" if left else f"{stands}, nothing missing"


def return_told(left: Sequence[Key]) -> str:
    """Say what a return to zero tilt lacks.

    >>> return_told([Key(102.0, 0.0, -1, 3)])
    'the return to zero tilt at phi 102 deg, theta 0 deg lacks 1 exposure'
    """
    place = f"phi {left[0].phi_deg:g} deg, theta {left[0].theta_deg:g} deg"
    return f"the return to zero tilt at {place} lacks {told_exposures(len(left))}"


def short(uid: str) -> str:
    """Return as much of the name of a series as is typed.

    >>> short("9abf645a-3ac3-4fd6-8b6b-b15cdd4ee5f9"), short("film")
    ('9abf645a', 'film')
    """
    return uid[:8] if len(uid) == 36 else uid


def told_exposures(count: int) -> str:
    """Say how many.

    >>> told_exposures(1), told_exposures(4)
    ('1 exposure', '4 exposures')
    """
    return f"{count} exposure{'' if count == 1 else 's'}"
