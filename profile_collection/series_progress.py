"""How far a measurement is and when it ends, told from its documents; who counts is up to `services.standing`."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Measurement
from mistral_txm.plans.return_to_zero import return_keys
from mistral_txm.services.exposures import RETURN
from mistral_txm.services.standing import (
    Contribution,
    Standing,
    planned_keys,
    rejected_keys,
    standing,
)

SIGNIFICANT_S = 5.0
"""Estimated time of what has to be done before its pace is trusted, s."""

Document = Mapping[str, Any]
Seconds = Callable[[Document, Collection[Key]], float]
"""Estimates what is left of the series of a start document, s, where some keys need not be taken."""


class Exposed(NamedTuple):
    """What the rules ask of an exposure."""

    key: Key
    polarization: int


class Run:
    """What one run adds to its series, as far as it is told.

    Of an exposure it keeps as little as the rules need, since a measurement has thousands of them; for its key, what
    `keys` has for it.
    """

    def __init__(
        self, start: Document, azimuth_deg: float, again: bool, keys: Mapping[Key, Key]
    ) -> None:
        self.start = start
        self.azimuth_deg = azimuth_deg
        self.again = again
        """Whether it takes other exposures than those that were missing."""
        self.exposed: list[Exposed] = []
        self.returned: set[Key] = set()
        """Keys of the return to zero tilt that were exposed."""
        self.references_s = 0.0
        """Estimated time of the darks and flats that were taken."""
        self.ended = False
        self._keys = keys
        self._waived: list[Key] = []
        self._streams: dict[str, str] = {}

    def add(self, name: str, doc: Document, readout_s: float) -> str:
        """Take a document; return the stream of an Event."""
        if name == "descriptor":
            self._streams[doc["uid"]] = doc["name"]
        self.ended |= name == "stop"
        if name != "event":
            return ""
        stream, data = self._streams[doc["descriptor"]], doc["data"]
        if stream == "primary":
            key = _key(data, "key")
            self.exposed.append(Exposed(self._keys.get(key, key), int(data["polarization"])))
        elif stream == RETURN:
            self.returned.add(_key(data, "key"))
        elif stream == "waived":
            self._waived.append(_key(data, "waived"))
        elif stream in ("dark", "flat"):
            self.references_s += float(data["ccd_exposure_s"]) + readout_s
        return stream

    def contribution(self) -> Contribution[Exposed]:
        """Return what it adds, or takes back."""
        return Contribution(self.exposed, self._waived, rejected_keys(self.start))


class Series:
    """One tilt series, or one photon energy of several, as far as it is told."""

    def __init__(self, start: Document) -> None:
        self.start = start
        self.manifest = planned_keys(start)
        self.runs: dict[str, Run] = {}
        self._keys = {key: key for key in self.manifest}
        self._returns = _returns(start)

    def begin(self, run_uid: str, start: Document) -> None:
        """Begin a run; one that was known before is told anew."""
        self.runs.pop(run_uid, None)
        if keys := planned_keys(start):
            self.start, self.manifest = start, keys
            self._keys = {key: key for key in keys}
            self._returns = _returns(start)
        azimuths = {key.phi_deg for key in self.manifest}
        # As planned: what a person says of the sample may differ a little.
        azimuth_deg = min(azimuths, key=lambda each: abs(each - start.get("phi_deg", each)))
        missing = sum(key.phi_deg == azimuth_deg for key in self.standing().missing)
        again = start.get("n_planned", missing) != missing
        self.runs[run_uid] = Run(start, azimuth_deg, again, self._keys)

    def standing(self) -> Standing[Exposed]:
        """Return which of its keys are accepted, waived and missing, of all its runs."""
        return standing(self.manifest, [run.contribution() for run in self.runs.values()])

    @property
    def takes_again(self) -> bool:
        """Whether a run goes on that takes other exposures than those that were missing."""
        return any(run.again and not run.ended for run in self.runs.values())

    def left_s(self, seconds: Seconds) -> float:
        """Estimate what is left of it; where exposures are taken again, of those alone."""
        left = frozenset(self._again() if self.takes_again else self._missing())
        azimuths = {key.phi_deg for key in left}
        taken_s = sum(
            run.references_s
            for run in self.runs.values()
            if run.azimuth_deg in azimuths and not run.ended
        )
        needless = frozenset((*self.manifest, *self._returns)) - left
        return max(seconds(self.start, needless) - taken_s, 0.0)

    def _missing(self) -> list[Key]:
        """Return what is missing, with the returns to zero tilt of the azimuths where something is, or a run."""
        missing = list(self.standing().missing)
        azimuths = {key.phi_deg for key in missing}
        azimuths |= {run.azimuth_deg for run in self.runs.values() if not run.ended}
        done = {key for run in self.runs.values() for key in run.returned}
        missing += [key for key in self._returns if key.phi_deg in azimuths and key not in done]
        return missing

    def _again(self) -> list[Key]:
        """Return as many keys as will be taken again: which ones is not told, so those after the last."""
        run = next(run for run in self.runs.values() if run.again and not run.ended)
        done = {one.key for one in run.exposed}
        number = max(int(run.start["n_planned"]) - len(done), 0)
        keys = [key for key in self.manifest if key.phi_deg == run.azimuth_deg]
        if run.exposed and run.exposed[-1].key in keys:
            last = keys.index(run.exposed[-1].key)
            keys = keys[last:] + keys[:last]
        return [key for key in keys if key not in done][:number]

    def place(self, key: Key) -> str:
        """Say where in the series a key is."""
        azimuths = list(dict.fromkeys(each.phi_deg for each in self.manifest))
        if key in self._returns:
            again = [each.repeat for each in self._returns if each[:3] == key[:3]]
            return (
                f"phi {azimuths.index(key.phi_deg) + 1}/{len(azimuths)}, back at theta {key.theta_deg:g} deg, "
                f"helicity {key.helicity:+d}, repeat {again.index(key.repeat) + 1}/{len(again)}"
            )
        tilts = list(
            dict.fromkeys(each.theta_deg for each in self.manifest if each.phi_deg == key.phi_deg)
        )
        repeats = sum(each[:3] == key[:3] for each in self.manifest)
        return (
            f"phi {azimuths.index(key.phi_deg) + 1}/{len(azimuths)}, "
            f"theta {key.theta_deg:g} deg ({tilts.index(key.theta_deg) + 1}/{len(tilts)}), "
            f"helicity {key.helicity:+d}, repeat {key.repeat + 1}/{repeats}"
        )


class Progress:
    """Counts the exposures of one measurement, which may have several series, and says when it ends.

    The end is that of the estimate of what is left, at the pace at which the estimate has come true so far. Time that
    was waited does not count for the pace. Where exposures are taken again, it is the end of their run.

    Parameters
    ----------
    uid
        Of the measurement: of its series; of several, what their names begin with.
    seconds
        Estimates what is left.
    readout_s
        What an exposure takes besides its own time, in that estimate, s.
    earlier
        The runs of the data folder, the oldest first: uid and documents. Those that are not of this measurement are
        passed over, from their start document on.
    """

    def __init__(
        self,
        uid: str,
        seconds: Seconds,
        readout_s: float,
        earlier: Iterable[tuple[str, Iterator[tuple[str, Document]]]] = (),
    ) -> None:
        self.uid = uid
        self._seconds = seconds
        self._readout_s = readout_s
        self._series: dict[str, Series] = {}
        self._series_of: dict[str, str] = {}
        self._last: tuple[Series, Key] | None = None
        self._waits = ""
        self._active_s = 0.0
        self._seen_s: float | None = None
        for run_uid, documents in earlier:
            self._add_earlier(run_uid, documents)
        self._begun_with_s = self._left_s()

    def _add_earlier(self, run_uid: str, documents: Iterator[tuple[str, Document]]) -> None:
        _, start = next(documents, ("", {}))
        begins = "planned_keys" in start and measurement_of(start) == self.uid
        if not begins and start.get("series") not in self._series:
            return
        run = self._begin(run_uid, start)
        for name, doc in documents:
            run.add(name, doc, self._readout_s)
        run.ended = True

    def _begin(self, run_uid: str, start: Document) -> Run:
        uid = self._series_of[run_uid] = str(start["series"])
        series = self._series.setdefault(uid, Series(start))
        series.begin(run_uid, start)
        return series.runs[run_uid]

    def add(self, run_uid: str, name: str, doc: Document) -> None:
        """Take a document."""
        if name in ("start", "stop"):
            come_true_s = self._begun_with_s - self._left_s()
            if name == "start":
                self._begin(run_uid, doc)
            else:
                self._waits = ""
                self._run(run_uid).add(name, doc, self._readout_s)
            # What is to be done may be something else now.
            self._begun_with_s = come_true_s + self._left_s()
            return
        stream = self._run(run_uid).add(name, doc, self._readout_s)
        if stream == "log":
            data = doc["data"]
            if data["log_kind"] in ("wait", "pause", "go_on"):
                self._waits = "" if data["log_kind"] == "go_on" else data["log_text"]
        elif stream in ("dark", "flat"):
            self._waits = ""
        elif stream in ("primary", RETURN):
            self._waits = ""
            self._last = self._series[self._series_of[run_uid]], _key(doc["data"], "key")

    def _run(self, run_uid: str) -> Run:
        return self._series[self._series_of[run_uid]].runs[run_uid]

    def knows(self, run_uid: str) -> bool:
        """Whether a run is one of this measurement."""
        return run_uid in self._series_of

    @property
    def goes_on(self) -> bool:
        """Whether one of its runs has not ended."""
        return any(not run.ended for one in self._series.values() for run in one.runs.values())

    def pass_time(self, now_s: float, waits: bool = False) -> None:
        """Let time pass; `waits`: nothing could be done meanwhile."""
        if self._seen_s is not None and not (waits or self._waits):
            self._active_s += now_s - self._seen_s
        self._seen_s = now_s

    def line(self, now: datetime, suspended: str = "") -> str:
        """Say where it is: ``phi 1/2, theta -12.5 deg (31/87), helicity -1, repeat 7/20, 41 %, ends Sat 03:20``."""
        stands = [one.standing() for one in self._series.values()]
        done = sum(len(each.accepted) for each in stands)
        waived = sum(len(each.waived) for each in stands)
        repeated = sum(len(each.repeated) for each in stands)
        unbegun = self._unbegun()
        planned = max(sum(each.planned for each in stands) * (1 + unbegun / len(stands)), 1)
        words = []
        if self._last is None:
            words.append("flats and darks")
        else:
            series, key = self._last
            if len(stands) + unbegun > 1:
                words.append(f"{series.start['energy_ev']:g} eV")
            words.append(series.place(key))
        words.append(f"{100 * done / planned:.0f} %")
        if repeated:
            words.append(f"{repeated} repeated")
        if waived:
            words.append(f"{waived} not needed")
        if why := suspended or self._waits:
            words.append(f"waits: {why}")
        elif (left_s := self._until_end_s(unbegun)) is not None:
            end = now + timedelta(seconds=left_s)
            words.append(f"ends {end.strftime('%a %H:%M' if left_s > 600 else '%H:%M:%S')}")
        return ", ".join(words)

    def _until_end_s(self, unbegun: int) -> float | None:
        """Return how long it will still take; None as long as its pace is not known."""
        left_s = self._left_s()
        come_true_s = self._begun_with_s - left_s
        if come_true_s < SIGNIFICANT_S:
            return None
        if unbegun and not any(one.takes_again for one in self._series.values()):
            left_s += unbegun * self._seconds(next(iter(self._series.values())).start, ())
        return left_s * self._active_s / come_true_s

    def _left_s(self) -> float:
        """Estimate what is left of the series that were begun; where exposures are taken again, of those alone."""
        everything = list(self._series.values())
        again = [one for one in everything if one.takes_again]
        return sum(one.left_s(self._seconds) for one in again or everything)

    def _unbegun(self) -> int:
        """Return of how many photon energies no series was begun."""
        some = next(iter(self._series.values()))
        return max(len(some.start.get("edges", {}).get("energies_ev", ())) - len(self._series), 0)


def _returns(start: Document) -> tuple[Key, ...]:
    """Return the keys of the returns to zero tilt that a start document plans."""
    described = start.get("measurement")
    return return_keys(Measurement.from_dict(described)) if described is not None else ()


def measurement_of(start: Document) -> str:
    """Return the uid of the measurement of a run, which is that of its series, or of all its edges."""
    return str(start.get("edges", start).get("series"))


def _key(data: Document, name: str) -> Key:
    return Key(
        float(data[f"{name}_phi_deg"]),
        float(data[f"{name}_theta_deg"]),
        int(data[f"{name}_helicity"]),
        int(data[f"{name}_repeat"]),
    )
