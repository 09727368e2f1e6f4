"""The live reconstruction: follows a series through journal and frame files and publishes its volume.

``python -m mistral_txm.services.live --data DIR`` runs beside the acquisition, which knows nothing of it. After every
finished angle the volume is solved anew from all angles so far; when several have finished meanwhile, they are
taken up together, so it never falls behind for good. It keeps nothing that it could not rebuild: killed and
started again, it reads the journal from the start and arrives at the same volume.

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
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mistral_txm.reconstruction import write_volume
from mistral_txm.services.frame_files import FrameError
from mistral_txm.services.journal import Document, follow
from mistral_txm.services.lifeline import watch_parent
from mistral_txm.services.live_files import (
    LIVE,
    PAIR,
    STATUS,
    VOLUME,
    FrameExamples,
    read_status,
    write_pair,
    write_status,
)
from mistral_txm.services.processing import (
    METHOD,
    AngleSignals,
    Processor,
    reconstruct_signals,
)
from mistral_txm.services.series_exposures import Angle, SeriesExposures
from mistral_txm.services.truth import singularities_in_layers

logger = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
"""Time between two statuses when nothing happens, s."""


class LiveSeries:
    """One series: takes its documents, and brings signals, volume and status up to what has come.

    Parameters
    ----------
    folder
        Where it publishes; made if missing.
    start
        Start document of the first of its runs that was seen.
    """

    def __init__(self, folder: Path, start: Mapping[str, Any]) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._exposures = SeriesExposures(start)
        self._pixel_nm = float(start["pixel_nm"])
        self._layers_nm = tuple(
            (float(low), float(high)) for low, high in start["sample"].get("layers_nm") or ()
        )
        self._processor = Processor(float(start["saturation_counts"]))
        self._signals: dict[tuple[float, float], tuple[Angle, AngleSignals]] = {}
        self._status: dict[str, Any] = {
            "series": self._exposures.uid,
            "state": "waiting",
            "phi_deg": None,
            "theta_deg": None,
            "angles_done": 0,
            "angles_planned": self._exposures.angles_planned,
            "frames_seen": 0,
            "frames_planned": self._exposures.planned,
            "updates": 0,
            "update_s": None,
            "lag_frames": 0,
            "method": METHOD,
            "prior": "layers" if self._layers_nm else "none",
            "residual": None,
            "singularities": [],
            "message": "waiting for the first angle",
        }

    def add(self, run_uid: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""
        self._exposures.add(run_uid, name, doc)

    def update(self) -> None:
        """Make signals of the angles that have finished, solve, and publish; at once if there is none.

        An angle whose frames cannot be used is left out, said in the status, and tried again with the next.
        """
        begin_s = time.monotonic()
        finished = self._exposures.finished()
        problems, newest = [], None
        for place, angle in finished.items():
            if place in self._signals and self._signals[place][0] == angle:
                continue
            try:
                self._signals[place] = (angle, self._processor.signals(angle))
                newest = place
            except (ValueError, FrameError) as problem:
                logger.error("%s", problem)
                problems.append(str(problem))
        used = sum(
            len(repeats)
            for angle, _ in self._signals.values()
            for repeats in angle.exposures.values()
        )
        seen = len(self._exposures.accepted())
        self._status.update(
            frames_seen=seen, lag_frames=seen - used, angles_done=len(self._signals)
        )
        if newest is not None:
            self._publish(newest)
            self._status["update_s"] = round(time.monotonic() - begin_s, 3)
        if problems:
            self._status.update(
                state="error" if self._all_there() else "following", message=problems[0]
            )
        elif self._all_there():
            self._status.update(state="complete", message="all angles are in the volume")
        self.heartbeat()

    def heartbeat(self) -> None:
        """Write the status with the time of now."""
        write_status(self._folder / STATUS, self._status | {"updated_at": time.time()})

    def _all_there(self) -> bool:
        return len(self._exposures.finished()) == self._exposures.angles_planned

    def _publish(self, newest: tuple[float, float]) -> None:
        angle, made = self._signals[newest]
        helicity = max(angle.exposures, key=lambda h: angle.exposures[h][-1].time)
        write_pair(
            self._folder / PAIR,
            FrameExamples(
                frame_vu=angle.exposures[helicity][-1].read(),
                absorption_vu=made.signals.absorption_vu,
                dichroic_vu=made.signals.dichroic_vu,
                phi_deg=made.phi_deg,
                theta_deg=made.theta_deg,
                helicity=helicity,
            ),
        )
        signals = [made for _, made in self._signals.values()]
        volume = reconstruct_signals(signals, self._pixel_nm, self._layers_nm)
        write_volume(self._folder / VOLUME, volume)
        points = singularities_in_layers(volume, self._layers_nm)
        rms = np.concatenate([series.residual_rms for series in volume.residuals])
        self._status.update(
            state="following",
            phi_deg=made.phi_deg,
            theta_deg=made.theta_deg,
            updates=self._status["updates"] + 1,
            residual=float(np.sqrt(np.mean(rms**2))),
            singularities=[asdict(point) for point in points],
            message=f"{len(signals)} of {self._exposures.angles_planned} angles in the volume",
        )


class LiveReconstruction:
    """Follows the journal of a data folder and keeps a `LiveSeries` for each series in it.

    Parameters
    ----------
    data
        The data folder.
    series
        Uid of the only series to follow; all others are passed over. None: all that are not complete yet.
    """

    def __init__(self, data: Path, series: str | None = None) -> None:
        self._data = data
        self._wanted = series
        self._series: dict[str, LiveSeries] = {}
        self._series_of_run: dict[str, str | None] = {}

    def add(self, run_uid: str, name: str, doc: Document) -> None:
        """Take one document of any run."""
        if name == "start":
            self._series_of_run[run_uid] = self._follow(doc)
        uid = self._series_of_run.get(run_uid)
        if uid is not None:
            self._series[uid].add(run_uid, name, doc)

    def update(self) -> None:
        """Bring every series up to what has come."""
        for series in self._series.values():
            series.update()

    def heartbeat(self) -> None:
        """Say that this process is alive."""
        for series in self._series.values():
            series.heartbeat()

    def _follow(self, start: Document) -> str | None:
        uid = start.get("series")
        if uid is None or not start.get("planned_keys") or self._wanted not in (None, uid):
            return None
        folder = self._data / LIVE / uid
        if uid not in self._series:
            if self._wanted is None and _complete(folder / STATUS):
                return None
            self._series[uid] = LiveSeries(folder, start)
        return str(uid)


def _complete(path: Path) -> bool:
    try:
        return bool(read_status(path)["state"] == "complete")
    except (ValueError, KeyError):
        return False


def run(data: Path, series: str | None, stop: threading.Event) -> None:
    """Follow until ``stop`` is set: documents are taken as they come, and worked on when no more are there."""
    documents: queue.SimpleQueue[tuple[str, str, Document]] = queue.SimpleQueue()

    def read() -> None:
        for entry in follow(data / "journal", stop):
            documents.put(entry)

    threading.Thread(target=read, name="journal", daemon=True).start()
    live = LiveReconstruction(data, series)
    while not stop.is_set():
        try:
            live.add(*documents.get(timeout=HEARTBEAT_S))
        except queue.Empty:
            live.heartbeat()
            continue
        while not documents.empty():
            live.add(*documents.get())
        live.update()


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
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if options.lifeline:
        watch_parent()
    print(json.dumps({"ready": True, "data": str(options.data)}), flush=True)
    run(options.data, options.series, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main())
