"""What there is to see of a running measurement, gathered from the journal and the live files.

`LiveView` looks at the files in threads of its own, once for all who watch; each look makes a new
`Snapshot`, an immutable value. A file that is missing or damaged leaves the last good content in
place and a line in `Snapshot.problems`; it never stops the view.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mistral_txm.services.exposures import Exposure, LogEntry, RunExposures
from mistral_txm.services.frame_files import FrameError
from mistral_txm.services.journal import follow
from mistral_txm.services.live_files import (
    LIVE,
    PAIR,
    STATUS,
    VOLUME,
    FrameExamples,
    read_pair,
    read_status,
)
from mistral_txm.services.live_volume import LiveVolume, read_live_volume
from mistral_txm.services.monitor_curves import FluxPoint, flux_points
from mistral_txm.services.monitor_health import Health, Pace, health
from mistral_txm.services.monitor_progress import Progress, held, progress_of
from mistral_txm.services.series_exposures import SeriesExposures
from mistral_txm.services.standing import is_rejection

logger = logging.getLogger(__name__)

_Content = TypeVar("_Content")
_NO_STATUS: Mapping[str, Any] = {}
_HEALTH_S = 2.0
"""Time between two looks at the processes, s."""


@dataclass(frozen=True)
class Snapshot:
    """One look at everything. What is not there yet is None."""

    progress: Progress | None = None
    held: LogEntry | None = None
    """What is asked or waited for in the run that began last, if it belongs to no series: to turn the sample."""
    frame_vu: NDArray[np.uint16] | None = None
    """The newest exposure that could be read, counts ``[v, u]``."""
    frame_of: Exposure | None = None
    """What is known of it."""
    status: Mapping[str, Any] = field(default_factory=lambda: _NO_STATUS)
    pair: FrameExamples | None = None
    volume: LiveVolume | None = None
    flux: tuple[FluxPoint, ...] = ()
    log: tuple[LogEntry, ...] = ()
    """What was notable in the runs of the series, and when they began and ended; oldest first."""
    health: tuple[Health, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Told:
    """What the journal told, after so many documents."""

    documents: int = -1
    progress: Progress | None = None
    held: LogEntry | None = None
    flux: tuple[FluxPoint, ...] = ()
    log: tuple[LogEntry, ...] = ()


class _Watched(Generic[_Content]):
    """A file that is read again when it was replaced; keeps the last good content."""

    def __init__(self, read: Callable[[Path], _Content]) -> None:
        self._read = read
        self._seen: tuple[Path, int, int, int] | None = None
        self.content: _Content | None = None
        self.problem: str | None = None

    def look(self, path: Path) -> None:
        """Read the file if it is another one than at the last look."""
        try:
            state = path.stat()
        except OSError:
            if self._seen is None or self._seen[0] != path:
                self.content = self.problem = None
            return
        seen = (path, state.st_ino, state.st_mtime_ns, state.st_size)
        if seen == self._seen:
            return
        if self._seen is not None and self._seen[0] != path:
            self.content = None
        self._seen = seen
        try:
            self.content, self.problem = self._read(path), None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as cause:
            # Whatever a damaged file makes of its reader, the view goes on.
            self.problem = str(cause)


class LiveView:
    """Looks at the data folder of a beamline until it is closed.

    Args:
        data: the data folder; it may still be empty, or not be there.
        poll_s: time between two looks, s.
    """

    def __init__(self, data: Path, poll_s: float = 0.5) -> None:
        self._data = data
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._series: dict[str, SeriesExposures] = {}
        self._series_of: dict[str, str] = {}
        self._newest_series: str | None = None
        self._beside: dict[str, RunExposures] = {}
        """By its uid the log of the run that began last, if it belongs to no series."""
        self._frame_of: Exposure | None = None
        self._status = _Watched(read_status)
        self._pair = _Watched(read_pair)
        self._volume = _Watched(read_live_volume)
        self._documents: dict[str, int] = {}
        self._told = _Told()
        self._health: tuple[Health, ...] = ()
        self._health_at_s = -_HEALTH_S
        self.snapshot = Snapshot()
        self._threads = [
            threading.Thread(target=target, name=f"live view: {name}", daemon=True)
            for name, target in (("journal", self._follow_journal), ("files", self._follow_files))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _follow_journal(self) -> None:
        for run_uid, name, doc in follow(self._data / "journal", self._stop, self._poll_s):
            with self._lock:
                self._documents[run_uid] = self._documents.get(run_uid, 0) + 1
                try:
                    self._take(run_uid, name, doc)
                except (KeyError, TypeError, ValueError, IndexError) as cause:
                    # Runs of other plans stand in the same journal.
                    logger.info("run %s: %s document not followed: %r", run_uid, name, cause)

    def _take(self, run_uid: str, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            uid = doc.get("series")
            if uid is not None:
                self._series.setdefault(uid, SeriesExposures(doc))
                self._series_of[run_uid] = uid
            if not is_rejection(doc):
                self._newest_series = uid or self._newest_series
                self._beside = {run_uid: RunExposures()} if uid is None else {}
        if run_uid in self._series_of:
            self._series[self._series_of[run_uid]].add(run_uid, name, doc)
        elif run_uid in self._beside and _is_of_log(name, doc):
            self._beside[run_uid].add(name, doc)

    def _follow_files(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._stop.wait(self._poll_s)

    def look(self) -> Snapshot:
        """Look once; what has not changed is the same object as in the snapshot before."""
        told = self._told = self._tell()
        progress = told.progress
        folder = self._folder(progress.series if progress is not None else None)
        problems = []
        if folder is not None:
            for watched, name in (
                (self._status, STATUS),
                (self._pair, PAIR),
                (self._volume, VOLUME),
            ):
                watched.look(folder / name)
                if watched.problem is not None:
                    problems.append(watched.problem)
        frame_vu = self.snapshot.frame_vu
        newest = progress.newest if progress is not None else None
        if newest is not None and newest != self._frame_of:
            try:
                frame_vu = newest.read()
            except (FrameError, OSError, ValueError, KeyError) as cause:
                problems.append(f"newest frame: {cause}")
            else:
                self._frame_of = newest
        status = self._status.content if self._status.content is not None else _NO_STATUS
        self.snapshot = Snapshot(
            progress=progress,
            held=told.held,
            frame_vu=frame_vu,
            frame_of=self._frame_of,
            status=status,
            pair=self._pair.content,
            volume=self._volume.content,
            flux=told.flux,
            log=told.log,
            health=self._look_at_health(status, told, frame_vu),
            problems=tuple(problems),
        )
        return self.snapshot

    def _look_at_health(
        self,
        status: Mapping[str, Any],
        told: _Told,
        frame_vu: NDArray[np.uint16] | None,
    ) -> tuple[Health, ...]:
        if time.monotonic() - self._health_at_s >= _HEALTH_S:
            with self._lock:
                documents = dict(self._documents)
            progress, is_held = told.progress, told.held is not None
            pace = Pace(is_held, None)
            if progress is not None:
                bytes_per_s = None
                if progress.pace_s and frame_vu is not None:
                    bytes_per_s = frame_vu.nbytes / progress.pace_s
                measuring = is_held or progress.state == "measuring"
                pace = Pace(measuring, bytes_per_s, progress.taken)
            self._health = health(self._data, status, documents, pace, time.time())
            self._health_at_s = time.monotonic()
        return self._health

    def _tell(self) -> _Told:
        """Sum up the newest series; what was told before where no document has come since."""
        with self._lock:
            documents = sum(self._documents.values())
            if documents == self._told.documents:
                return self._told
            beside = next((why for run in self._beside.values() if (why := held(run))), None)
            if self._newest_series is None:
                return _Told(documents, held=beside)
            series = self._series[self._newest_series]
            progress = progress_of(series)
            return _Told(documents, progress, beside, flux_points(series.runs), _log(series.runs))

    def _folder(self, series: str | None) -> Path | None:
        """Folder of the live files: that of the series in the journal, else the newest one."""
        if series:
            return self._data / LIVE / series
        try:
            folders = [entry for entry in (self._data / LIVE).iterdir() if entry.is_dir()]
            return max(folders, key=lambda folder: folder.stat().st_mtime, default=None)
        except OSError:
            return None


def _is_of_log(name: str, doc: Mapping[str, Any]) -> bool:
    """Whether a document tells of the log of its run, or of its end; exposures of other plans may be of any shape."""
    return doc.get("name") == "log" if name == "descriptor" else name in ("start", "event", "stop")


def _log(runs: Iterable[RunExposures]) -> tuple[LogEntry, ...]:
    entries = []
    for run in runs:
        entries.append(LogEntry(float(run.start["time"]), "start", f"run {run.start['uid'][:8]}"))
        entries += run.log
        if run.stop is not None:
            reason = " ".join(str(run.stop.get("reason", "")).split())
            status = str(run.stop["exit_status"])
            text = f"{status}: {reason}" if reason else status
            entries.append(LogEntry(float(run.stop.get("time", 0.0)), "end", text))
    return tuple(entries)
