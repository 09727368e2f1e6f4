"""The live reconstruction: follows a series through journal and frame files and publishes its volume.

``python -m mistral_txm.services.live --data DIR`` runs beside the acquisition, which knows nothing of it. After every
finished angle there is a provisional volume, and then the volume is solved anew from all angles so far; when several
have finished meanwhile, they are taken up together, so it never falls behind for good. An angle or a volume that fails
is named in the status, the last good volume stays, and what failed is tried again. It keeps nothing that it could not
rebuild: killed and started again, it reads the journal from the start and arrives at the same volume.

What it publishes in ``DIR/live/<series>/`` is described in `live_files`.
"""

import argparse
import json
import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mistral_txm.reconstruction.files import FileError
from mistral_txm.reconstruction.frames import dark_level, stack_of
from mistral_txm.reconstruction.repeats import average
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.services.angle_signals import AngleSignals
from mistral_txm.services.journal import Document, follow
from mistral_txm.services.lease import acquiring
from mistral_txm.services.lifeline import watch_parent
from mistral_txm.services.live_failures import Failures
from mistral_txm.services.live_files import LIVE
from mistral_txm.services.live_series import LiveSeries
from mistral_txm.services.live_volumes import VolumeMaker
from mistral_txm.services.standing import is_rejection
from mistral_txm.services.truth import singularities_in_layers

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
"""Time between two statuses when nothing happens, s."""
AT_ONCE_S = 0.3
"""A journal that is read has no longer pauses than that, s."""


class LiveReconstruction:
    """Follows the journal of a data folder and keeps a `LiveSeries` for each series in it.

    Parameters
    ----------
    data
        The data folder.
    series
        Uid of the only series to follow, also if it was complete before. None: all that are not.
    """

    def __init__(self, data: Path, series: str | None = None) -> None:
        self._data = data
        self._wanted = series
        self._began_at = time.time()
        self._series: dict[str, LiveSeries] = {}
        self._measurement_of: dict[str, str] = {}
        self._last_at: dict[str, float] = {}
        self._changed: set[str] = set()
        self._series_of_run: dict[str, str | None] = {}
        self._open_run: str | None = None
        self._newest: str | None = None
        self._failures = Failures()

    def add(self, run_uid: str, name: str, doc: Document) -> None:
        """Take one document of any run."""
        if name == "start":
            self._series_of_run[run_uid] = self._follow(doc)
        uid = self._series_of_run.get(run_uid)
        if uid is None:
            return
        self._series[uid].add(run_uid, name, doc)
        self._changed.add(uid)
        self._last_at[uid] = max(self._last_at.get(uid, 0.0), float(doc.get("time", 0.0)))
        if name == "start" and not is_rejection(doc):  # which measures nothing
            self._open_run = run_uid
            self._newest = self._measurement_of[uid]
        elif name == "stop" and run_uid == self._open_run:
            self._open_run = None

    def update(self) -> None:
        """Bring up to what has come the series of the newest measurement, the newest first.

        Where nothing has come of them, they are looked at again, and one series of an older measurement is made; of
        these nothing is kept but what is published.
        """
        now = [uid for uid in reversed(self._series) if self._measurement_of[uid] == self._newest]
        fresh = [uid for uid in now if uid in self._changed]
        for uid in fresh or now:
            self._update(uid)
        if not fresh:
            self._make_one_of_before(now)
        for uid, series in self._series.items():
            done = series.is_over and uid != now[0] if uid in now else True
            if done and uid not in self._changed:
                series.make_room()

    def _make_one_of_before(self, now: Sequence[str]) -> None:
        """Make one series that is not measured any more.

        What was over before this process began waits until nothing is measured: it may take minutes.
        """
        idle = self._open_run is None or not acquiring(self._data)
        for uid in reversed(self._series):
            wanted = uid in self._changed and uid not in now
            if wanted and (idle or self._last_at[uid] >= self._began_at):
                self._update(uid)
                return

    def _update(self, uid: str) -> None:
        """Bring one series up to what has come; where its files cannot be written, again at the next heartbeat."""
        self._changed.discard(uid)
        try:
            self._series[uid].update()
        except (FileError, OSError) as problem:
            self._failures.tell(uid, problem)
            self._changed.add(uid)
        # Whatever it is, the other series go on, and this one with what comes of it.
        except Exception as problem:
            self._failures.tell(uid, problem, f"series {uid}: ")
        else:
            self._failures.over(uid)

    def _follow(self, start: Document) -> str | None:
        """Return the series of a run, if it is one to follow; only a run that plans one begins it."""
        uid = start.get("series")
        if uid is None or self._wanted not in (None, uid):
            return None
        if uid not in self._series:
            if not start.get("planned_keys"):
                return None
            afresh = self._wanted is not None
            try:
                self._series[uid] = LiveSeries(self._data / LIVE / uid, start, afresh=afresh)
            except (KeyError, TypeError, ValueError) as problem:
                logger.error(
                    "run %s: series %s is not followed, its start document lacks or misstates %s",
                    start.get("uid"), uid, problem,
                )  # fmt: skip
                return None
            self._measurement_of[uid] = start.get("edges", {}).get("series", uid)
        return str(uid)


Documents = queue.SimpleQueue[tuple[str, str, Document] | None]
"""Run, name and document; None after the last."""


def backlog(documents: Documents, before: float) -> list[tuple[str, str, Document] | None]:
    """Take the documents from before a time, s since 1970, as far as they come at once.

    A process that starts in mid-series reads all angles so far before its first volume: one of the first angles alone
    would replace one that has more.

    >>> journal: Documents = queue.SimpleQueue()
    >>> for at in (1.0, 2.0, 3.0, 4.0):
    ...     journal.put(("a run", "event", {"time": at}))
    >>> [doc["time"] for _, _, doc in backlog(journal, 3.0)]
    [1.0, 2.0, 3.0]
    >>> len(backlog(journal, 5.0))
    1
    """
    entries = []
    while True:
        try:
            entries.append(documents.get(timeout=AT_ONCE_S))
        except queue.Empty:
            return entries
        if entries[-1] is None or entries[-1][2].get("time", 0.0) >= before:
            return entries


def run(data: Path, series: str | None, stop: threading.Event) -> None:
    """Follow until ``stop`` is set: documents are taken as they come, and worked on when no more are there."""
    documents: Documents = queue.SimpleQueue()

    def read() -> None:
        try:
            for entry in follow(data / "journal", stop):
                documents.put(entry)
        finally:  # also where the journal cannot be read any more: who waits is woken, and ends
            documents.put(None)

    threading.Thread(target=read, name="journal", daemon=True).start()
    live = LiveReconstruction(data, series)
    entries = backlog(documents, time.time())
    while True:
        for entry in entries:
            if entry is None:
                return
            live.add(*entry)
        live.update()
        try:
            entries = [documents.get(timeout=HEARTBEAT_S)]
        except queue.Empty:
            entries = []
        while not documents.empty():
            entries.append(documents.get())


def _compile() -> None:
    """Do something tiny: on a new machine the loops are compiled once, better now than at the first angle."""
    frame = (500 + 10 * (np.arange(64 * 64) % 37)).astype(np.uint16).reshape(1, 64, 64)
    repeats = np.concatenate([frame, frame])
    average(stack_of(repeats, dark_level(repeats // 5), [1.0, 1.0]), 1.0)
    flat = np.zeros((16, 16), np.float32)
    signals = [
        AngleSignals(phi_deg, theta_deg, Signals(flat, flat, flat + 1))
        for phi_deg in (0.0, 90.0)
        for theta_deg in (-30.0, 30.0)
    ]
    (made,) = VolumeMaker(10.5, [(-20.0, 20.0)]).make(signals, (90.0, 40.0))
    singularities_in_layers(made.volume, [(-20.0, 20.0)])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the live reconstruction until SIGTERM, Ctrl-C, or the end of the parent."""
    parser = argparse.ArgumentParser(
        prog="python -m mistral_txm.services.live", description="the live reconstruction"
    )
    parser.add_argument("--data", type=Path, required=True, help="data folder")
    parser.add_argument("--series", metavar="UID", help="the only series to follow")
    parser.add_argument("--lifeline", action="store_true", help="stop when standard input ends")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s live %(levelname)s: %(message)s")
    # At once: catching up may take minutes, and nothing is lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    if options.lifeline:
        watch_parent()
    _compile()
    print(json.dumps({"ready": True, "data": str(options.data)}), flush=True)
    run(options.data, options.series, threading.Event())
    return 0


if __name__ == "__main__":
    sys.exit(main())
