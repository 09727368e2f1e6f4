"""The progress line of a measurement, told from its journal: it reads and never holds anything up."""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TextIO

from mistral_txm.services.journal import follow

INTERVAL_S = 1.0
UNATTENDED_INTERVAL_S = 10.0
"""Time between two lines where the output is a file and not a screen, s."""


class Progress:
    """Counts the exposures of one series and says where it is and when it ends.

    The end is extrapolated from the pace so far: exposures left times the mean time per exposure.
    """

    def __init__(self, planned_keys: Sequence[Sequence[Any]], started_s: float) -> None:
        self._theta: dict[float, list[float]] = {}
        for phi_deg, theta_deg, *_ in planned_keys:
            angles = self._theta.setdefault(float(phi_deg), [])
            if theta_deg not in angles:
                angles.append(theta_deg)
        self._repeats = {tuple(key[:3]): int(key[3]) for key in planned_keys}
        self._planned = sum(self._repeats.values())
        self._started_s = started_s
        self._done: set[tuple[float, float, int, int]] = set()
        self._last: tuple[float, float, int, int] | None = None

    def count(self, data: Mapping[str, Any]) -> None:
        """Count the exposure of one Event of the primary stream."""
        self._last = (
            float(data["key_phi_deg"]),
            float(data["key_theta_deg"]),
            int(data["key_helicity"]),
            int(data["key_repeat"]),
        )
        self._done.add(self._last)

    def line(self, now_s: float, now: datetime) -> str:
        """Say where the series is, such as ``phi 1/2, theta 31/87, helicity -, repeat 7/20, 41 %``."""
        if self._last is None:
            return "flats and darks"
        phi_deg, theta_deg, helicity, repeat = self._last
        fraction = len(self._done) / self._planned
        left_s = (now_s - self._started_s) * (1 / fraction - 1)
        end = (now + timedelta(seconds=left_s)).strftime("%a %H:%M" if left_s > 600 else "%H:%M:%S")
        angles = self._theta[phi_deg]
        return (
            f"phi {list(self._theta).index(phi_deg) + 1}/{len(self._theta)}, "
            f"theta {angles.index(theta_deg) + 1}/{len(angles)} ({theta_deg:+.0f} deg), "
            f"helicity {'+' if helicity > 0 else '-'}, "
            f"repeat {repeat + 1}/{self._repeats[phi_deg, theta_deg, helicity]}, "
            f"{100 * fraction:.0f} %, ends {end}"
        )


class ProgressLine:
    """Shows the progress of the runs that begin while it is open, on a line that renews itself."""

    def __init__(self, journal: Path, output: TextIO = sys.stderr) -> None:
        self._journal = journal
        self._output = output
        self._stop = threading.Event()
        self._known = {path.stem for path in journal.glob("*.jsonl")}
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the line."""
        self._stop.set()
        self._thread.join()
        if self._output.isatty():
            self._output.write("\n")

    def _run(self) -> None:
        screen = self._output.isatty()
        interval_s = INTERVAL_S if screen else UNATTENDED_INTERVAL_S
        progress: Progress | None = None
        primary: set[str] = set()
        shown_s = time.monotonic()
        for run_uid, name, doc in follow(self._journal, self._stop):
            if run_uid in self._known:
                continue
            if name == "start" and progress is None:
                progress = Progress(doc["planned_keys"], time.monotonic())
            elif name == "descriptor" and doc["name"] == "primary":
                primary.add(doc["uid"])
            elif name == "event" and doc["descriptor"] in primary and progress is not None:
                progress.count(doc["data"])
            now_s = time.monotonic()
            if progress is not None and now_s - shown_s >= interval_s:
                line = progress.line(now_s, datetime.now())
                self._output.write(f"\r\x1b[K{line}" if screen else f"{line}\n")
                self._output.flush()
                shown_s = now_s
