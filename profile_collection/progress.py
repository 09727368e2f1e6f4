"""The progress line of a measurement, told from its journal: it reads and never holds anything up."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TextIO

from mistral_txm.devices.configuration import Configuration
from mistral_txm.devices.key import Key
from mistral_txm.plans import Measurement, estimate
from mistral_txm.services.journal import JournalTail
from mistral_txm.services.standing import planned_keys
from mistral_txm.services.verification import UnknownSeriesError, read_series

INTERVAL_S = 1.0
UNATTENDED_INTERVAL_S = 10.0
"""Time between two lines where the output is a file and not a screen, s."""
POLL_S = 0.05
SIGNIFICANT_S = 5.0
"""Estimated time of what has to be done before its pace is trusted, s."""

Document = Mapping[str, Any]
Seconds = Callable[[Document, Collection[Key]], float]
"""Estimates what is left of the series of a start document, s, where some keys need not be taken."""

logger = logging.getLogger("bluesky")


class Series:
    """One tilt series, or one photon energy of several, as far as it is told."""

    def __init__(self, start: Document, done: Collection[Key]) -> None:
        self.start = start
        self.manifest = planned_keys(dict(start))
        self.done = set(done)
        self.waived: set[Key] = set()
        self.references_s: dict[float, float] = {}
        """Estimated time of the darks and flats that were taken, by azimuth."""

    def left_s(self, seconds: Seconds) -> float:
        """Estimate what is left of it."""
        needless = self.done | self.waived
        azimuths = {key.phi_deg for key in self.manifest if key not in needless}
        taken_s = sum(spent for phi, spent in self.references_s.items() if phi in azimuths)
        return max(seconds(self.start, needless) - taken_s, 0.0)

    def place(self, key: Key) -> str:
        """Say where in the series a key is."""
        azimuths = list(dict.fromkeys(each.phi_deg for each in self.manifest))
        tilts = list(
            dict.fromkeys(each.theta_deg for each in self.manifest if each.phi_deg == key.phi_deg)
        )
        repeats = sum(each[:3] == key[:3] for each in self.manifest)
        return (
            f"phi {azimuths.index(key.phi_deg) + 1}/{len(azimuths)}, "
            f"theta {tilts.index(key.theta_deg) + 1}/{len(tilts)}, "
            f"helicity {'+' if key.helicity > 0 else '-'}, repeat {key.repeat + 1}/{repeats}"
        )


class Progress:
    """Counts the exposures of one measurement, which may have several series, and says when it ends.

    The end is that of the estimate of what is left, at the pace at which the estimate has come true so far. Time that
    was waited does not count for the pace.

    Parameters
    ----------
    seconds
        Estimates what is left.
    readout_s
        What an exposure takes besides its own time, in that estimate, s.
    """

    def __init__(self, seconds: Seconds, readout_s: float) -> None:
        self._seconds = seconds
        self._readout_s = readout_s
        self.series: dict[str, Series] = {}
        self._streams: dict[str, tuple[str, str]] = {}
        self._series_of: dict[str, str] = {}
        self._last: tuple[Series, Key] | None = None
        self._waits = ""
        self._repeated = 0
        self._begun_with_s = 0.0
        self._active_s = 0.0
        self._seen_s: float | None = None

    def add(self, run_uid: str, name: str, doc: Document, done: Collection[Key] = ()) -> None:
        """Take a document; of the first run of a series, with the keys that were done before."""
        if name == "start":
            uid = self._series_of[run_uid] = str(doc["series"])
            if uid not in self.series:
                self.series[uid] = Series(doc, done)
                self._begun_with_s += self.series[uid].left_s(self._seconds)
        elif name == "descriptor":
            self._streams[doc["uid"]] = run_uid, doc["name"]
        elif name == "event":
            run_uid, stream = self._streams[doc["descriptor"]]
            self._event(self.series[self._series_of[run_uid]], stream, doc["data"])

    def knows(self, run_uid: str) -> bool:
        """Whether a run is one of this measurement."""
        return run_uid in self._series_of

    def waits_no_more(self) -> None:
        """Forget what was waited for: a run has ended."""
        self._waits = ""

    def _event(self, series: Series, stream: str, data: Document) -> None:
        if stream == "log":
            if data["log_kind"] in ("wait", "pause", "go_on"):
                self._waits = "" if data["log_kind"] == "go_on" else data["log_text"]
            self._repeated += data["log_kind"] == "repeat"
        elif stream == "waived":
            first = _key(data, "waived")
            series.waived |= {
                key
                for key in series.manifest
                if key[:3] == first[:3] and key.repeat >= first.repeat
            }
        elif stream in ("dark", "flat"):
            self._waits = ""
            phi_deg = float(data["key_phi_deg"])
            spent_s = float(data["ccd_exposure_s"]) + self._readout_s
            series.references_s[phi_deg] = series.references_s.get(phi_deg, 0.0) + spent_s
        elif stream == "primary":
            self._waits = ""
            key = _key(data, "key")
            series.done.add(key)
            self._last = series, key

    def pass_time(self, now_s: float, waits: bool = False) -> None:
        """Let time pass; `waits`: nothing could be done meanwhile."""
        if self._seen_s is not None and not (waits or self._waits):
            self._active_s += now_s - self._seen_s
        self._seen_s = now_s

    def line(self, now: datetime, suspended: str = "") -> str:
        """Say where it is, such as ``phi 1/2, theta 31/87, helicity -, repeat 7/20, 41 %, ends Sat 03:20``."""
        everything = [key for one in self.series.values() for key in one.manifest]
        waived = sum(len(one.waived - one.done) for one in self.series.values())
        done = sum(len(one.done.intersection(one.manifest)) for one in self.series.values())
        unbegun = self._unbegun()
        planned = max((len(everything) - waived) * (1 + unbegun / len(self.series)), 1)
        words = []
        if self._last is None:
            words.append("flats and darks")
        else:
            series, key = self._last
            if len(self.series) + unbegun > 1:
                words.append(f"{series.start['energy_ev']:g} eV")
            words.append(series.place(key))
        words.append(f"{100 * done / planned:.0f} %")
        if self._repeated:
            words.append(f"{self._repeated} repeated")
        if waived:
            words.append(f"{waived} not needed")
        if why := suspended or self._waits:
            words.append(f"waits: {why}")
        elif (left_s := self._left_s(unbegun)) is not None:
            end = now + timedelta(seconds=left_s)
            words.append(f"ends {end.strftime('%a %H:%M' if left_s > 600 else '%H:%M:%S')}")
        return ", ".join(words)

    def _left_s(self, unbegun: int) -> float | None:
        """Return how long it will still take; None as long as its pace is not known."""
        left_s = sum(one.left_s(self._seconds) for one in self.series.values())
        come_true_s = self._begun_with_s - left_s
        if come_true_s < SIGNIFICANT_S:
            return None
        some = next(iter(self.series.values()))
        left_s += unbegun * self._seconds(some.start, ())
        return left_s * self._active_s / come_true_s

    def _unbegun(self) -> int:
        """Return of how many photon energies no series was begun."""
        some = next(iter(self.series.values()))
        return max(len(some.start.get("edges", {}).get("energies_ev", ())) - len(self.series), 0)


def _key(data: Document, name: str) -> Key:
    return Key(
        float(data[f"{name}_phi_deg"]),
        float(data[f"{name}_theta_deg"]),
        int(data[f"{name}_helicity"]),
        int(data[f"{name}_repeat"]),
    )


class ProgressLine:
    """Shows the progress of the runs that begin while it exists, on a line that renews itself.

    It is entered while the RunEngine runs a plan, and again when a plan that was paused is resumed.

    Parameters
    ----------
    data
        Data folder.
    configuration
        Of the beamline, whose usual durations the estimate uses.
    suspended
        Says why nothing can be done now; empty where something can.
    output
        Where the line goes.
    """

    def __init__(
        self,
        data: Path,
        configuration: Configuration,
        suspended: Callable[[], str] = str,
        output: TextIO | None = None,
    ) -> None:
        self._data = data
        self._configuration = configuration
        self._suspended = suspended
        self._output = sys.stderr if output is None else output
        self._stop = threading.Event()
        self._known = set(_names(data))
        self._tails: list[JournalTail] = []
        self._progress: Progress | None = None
        self._of = ""
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        """Begin to show, or go on."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the line."""
        self._stop.set()
        self._thread.join()
        if self._progress is not None:
            self._progress.pass_time(time.monotonic())
            if self._output.isatty():
                self._output.write("\n")

    def _run(self) -> None:
        screen = self._output.isatty()
        interval_s = INTERVAL_S if screen else UNATTENDED_INTERVAL_S
        shown_s = time.monotonic()
        if self._progress is not None:
            self._progress.pass_time(shown_s, waits=True)
        try:
            while not self._stop.wait(POLL_S):
                for run_uid, name, doc in self._documents():
                    self._take(run_uid, name, doc)
                now_s, suspended = time.monotonic(), self._suspended()
                if self._progress is None:
                    continue
                self._progress.pass_time(now_s, bool(suspended))
                if now_s - shown_s >= interval_s:
                    line = self._progress.line(datetime.now(), suspended)
                    self._output.write(f"\r\x1b[K{line}" if screen else f"{line}\n")
                    self._output.flush()
                    shown_s = now_s
        except Exception:  # a measurement goes on without
            logger.exception("the progress is not shown any more")

    def _documents(self) -> Iterator[tuple[str, str, Document]]:
        for name in _names(self._data) - self._known:
            self._known.add(name)
            self._tails.append(JournalTail(self._data / "journal" / name))
        for tail in self._tails:
            for name, doc in tail.read():
                yield tail.run_uid, name, doc
        self._tails = [tail for tail in self._tails if not tail.finished]

    def _take(self, run_uid: str, name: str, doc: Document) -> None:
        if name == "start" and "planned_keys" in doc:
            of = str(doc.get("edges", doc)["series"])
            if of != self._of or self._progress is None:
                self._of = of
                readout_s = self._configuration.ccd.readout_time_s
                self._progress = Progress(self._seconds, readout_s)
            self._progress.add(run_uid, name, doc, self._done(doc["series"]))
        elif name != "start" and self._progress is not None and self._progress.knows(run_uid):
            self._progress.add(run_uid, name, doc)
        if name == "stop" and self._progress is not None:
            self._progress.waits_no_more()

    def _done(self, series: str) -> Collection[Key]:
        """Return what of a series was done before."""
        try:
            (record,) = read_series(self._data, series)
        except UnknownSeriesError:
            return ()
        stands = record.standing()
        return {*stands.accepted, *stands.waived}

    def _seconds(self, start: Document, needless: Collection[Key]) -> float:
        measurement = Measurement.from_dict(start["measurement"])
        skip = dict.fromkeys(measurement.energies_ev, needless)
        # How large the frames are does not change how long they take.
        return float(estimate(measurement, self._configuration, (1, 1), skip).duration_s)


def _names(data: Path) -> set[str]:
    return {path.name for path in (data / "journal").glob("*.jsonl")}
