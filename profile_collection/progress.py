"""The progress line of a measurement, told from its journal: it reads and never holds anything up."""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import Self, TextIO

from mistral_txm.devices.configuration import Configuration
from mistral_txm.devices.key import Key
from mistral_txm.plans import Measurement, estimate
from mistral_txm.profile_collection.series_progress import Document, Progress, measurement_of
from mistral_txm.services.journal import JournalTail, journal_files, read_journal

INTERVAL_S = 1.0
UNATTENDED_INTERVAL_S = 10.0
"""Time between two lines where the output is a file and not a screen, s."""
POLL_S = 0.05

logger = logging.getLogger("bluesky")


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
        self._thread = threading.Thread()

    def __enter__(self) -> Self:
        """Begin to show, or go on."""
        self._catch_up()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the line; of a plan that has ended nothing is kept."""
        self._stop.set()
        self._thread.join()
        if self._progress is not None:
            self._progress.pass_time(time.monotonic())
            if self._output.isatty():
                self._output.write("\n")
        self._catch_up()

    def _catch_up(self) -> None:
        """Read what has come, and forget what has ended."""
        try:
            self._take_documents()
            if self._progress is not None and not self._progress.goes_on:
                self._progress = None
        except Exception:
            self._progress = None
            logger.exception("the progress is not shown")

    def _run(self) -> None:
        screen = self._output.isatty()
        interval_s = INTERVAL_S if screen else UNATTENDED_INTERVAL_S
        shown_s = time.monotonic()
        if self._progress is not None:
            self._progress.pass_time(shown_s, waits=True)
        try:
            while not self._stop.wait(POLL_S):
                self._take_documents()
                now_s, suspended = time.monotonic(), self._suspended()
                if self._progress is None:
                    continue
                self._progress.pass_time(now_s, bool(suspended))
                if now_s - shown_s >= interval_s:
                    line = self._progress.line(datetime.now(), suspended)
                    self._output.write(f"\r\x1b[K{_fitting(line)}" if screen else f"{line}\n")
                    self._output.flush()
                    shown_s = now_s
        except Exception:  # a measurement goes on without
            logger.exception("the progress is not shown any more")

    def _take_documents(self) -> None:
        for name in _names(self._data) - self._known:
            self._known.add(name)
            self._tails.append(JournalTail(self._data / "journal" / name))
        for tail in self._tails:
            for name, doc in tail.read():
                self._take(tail.run_uid, name, doc)
        self._tails = [tail for tail in self._tails if not tail.finished]

    def _take(self, run_uid: str, name: str, doc: Document) -> None:
        if name == "start":
            self._begin(doc)
        if self._progress is None:
            return
        if self._progress.knows(run_uid) or (name == "start" and "planned_keys" in doc):
            self._progress.add(run_uid, name, doc)

    def _begin(self, start: Document) -> None:
        """Make ready for a run: for one that is not of a series, nothing is shown of the series before."""
        if "planned_keys" not in start:
            if self._progress is not None and not self._progress.goes_on:
                self._progress = None
            return
        uid = measurement_of(start)
        if self._progress is None or self._progress.uid != uid:
            files = journal_files(self._data / "journal")
            earlier = ((path.stem, read_journal(path)) for path in files)
            readout_s = self._configuration.ccd.readout_time_s
            self._progress = Progress(uid, self._seconds, readout_s, earlier)

    def _seconds(self, start: Document, needless: Collection[Key]) -> float:
        measurement = Measurement.from_dict(start["measurement"])
        skip = dict.fromkeys(measurement.energies_ev, needless)
        # How large the frames are does not change how long they take.
        return float(estimate(measurement, self._configuration, (1, 1), skip).duration_s)


def _names(data: Path) -> set[str]:
    return {path.name for path in (data / "journal").glob("*.jsonl")}


def _fitting(line: str) -> str:
    """Cut a line that is too long for the screen at its begin, since its end says most; it could not renew itself."""
    columns = shutil.get_terminal_size().columns - 1
    return line if len(line) <= columns else f"\N{HORIZONTAL ELLIPSIS}{line[1 - columns :]}"
