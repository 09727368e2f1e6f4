"""The live reconstruction against its limits: how late a volume is after the last frame of an angle, and its memory.

A whole series is measured first, at the simulated beamline under `real` conditions as fast as it goes, and then played
to the live reconstruction up to one angle before, and up to, those that are looked at. Meanwhile another simulated
measurement goes on at the pace of a real one on the same cores. By hand, with all angles of the paper:
``python -m benchmarks.live`` (about half an hour).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

LATENCY_LIMIT_S = 8.0
MEMORY_LIMIT_GB = 6.0
SERIES = "live"
LAYERS_NM = [[-120.0, -40.0], [40.0, 120.0]]
TILTS, REPEATS, SIZE = 87, 15, "paper"


def acquire(data: str, tilts: int, repeats: int, size: str, pace: float = 0.0) -> None:
    """Measure a series of two azimuths; ``pace``: how long one of its seconds takes, s; 0: as fast as it goes."""
    from mistral_txm.plans import Measurement
    from mistral_txm.profile_collection import start

    tilt = {"first_deg": -55.0, "last_deg": 55.0, "step_deg": 110.0 / (tilts - 1)}
    measurement = Measurement.from_dict(
        {
            "sample": {"name": "benchmark", "layers_nm": LAYERS_NM},
            "tilts": [{**tilt, "exposure_s": 8.0, "repeats": repeats}],
            "azimuths_deg": [0.0, 102.0],
            "flats": {"exposure_s": 3.0, "repeats": 10},
            "darks": {"repeats": 5},
            "energies_ev": [707.4],
        }
    )
    options: dict[str, Any] = {"data": data, "size": size, "conditions": "real"}
    with start(simulated=True, time_scale=pace, **options) as session:
        for name in ("catalog", "live", "monitor"):
            session.services[name].stop()
        print("measuring", flush=True)
        session.RE(session.vector_tomography(session.instrument, measurement, series=SERIES))


def latencies(data: str, layers: bool) -> dict[str, Any]:
    """Play a series to the live reconstruction; return s by the number of angles, the volume's shape, and GB.

    Of each angle that is looked at the exposures come one by one, as they do at a beamline. The first time is that to
    a volume with the angle in it on the disk, the second that to all that is told of it, the whole solution included.

    ``layers``: whether it knows where the film is magnetic.
    """
    from mistral_txm.reconstruction import read_volume
    from mistral_txm.services.journal import JournalTail, journal_files
    from mistral_txm.services.live import LiveReconstruction

    runs = [
        [(tail.run_uid, name, dict(doc)) for name, doc in tail.read()]
        for tail in map(JournalTail, journal_files(Path(data) / "journal"))
    ]
    runs.sort(key=lambda run: float(run[0][2]["time"]))
    documents = [entry for run in runs for entry in run]
    streams: dict[str, str] = {}
    exposures: dict[tuple[float, float], list[int]] = {}
    for number, (_, name, doc) in enumerate(documents):
        if name == "start" and not layers:
            doc["sample"] = {**doc["sample"], "layers_nm": None}
        if name == "descriptor":
            streams[doc["uid"]] = doc["name"]
        if name == "event" and streams[doc["descriptor"]] == "primary":
            place = doc["data"]["key_phi_deg"], doc["data"]["key_theta_deg"]
            exposures.setdefault(place, []).append(number + 1)
    order = sorted(exposures.values())
    half = len(order) // 2
    wanted = (half // 4, half - 1, half + half // 4, len(order) - 1)
    found = {}
    live, fed = LiveReconstruction(Path(data), SERIES), 0
    folder = Path(data) / "live" / SERIES
    for angle in wanted:
        for end in (order[angle - 1][-1], *order[angle]):
            for entry in documents[fed:end]:
                live.add(*entry)
            fed = end
            with _Replaced(folder / "volume.h5") as replaced:
                live.update()
        found[angle + 1] = replaced.first_s, replaced.end_s
    volume = read_volume(folder / "volume.h5")
    status = json.loads((folder / "status.json").read_text())
    return {
        "seconds": found,
        "shape": volume.mx.shape,
        "memory_gb": _most_memory_gb(),
        "message": status["message"],
    }


class _Replaced:
    """Looks when a file is replaced for the first time, s from the beginning, and how long all took."""

    first_s = float("nan")
    end_s = float("nan")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._before = self._number()
        self._begin_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end_s = time.monotonic() - self._begin_s
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._number() == self._before:
            if self._stop.wait(0.05):
                return
        self.first_s = time.monotonic() - self._begin_s

    def _number(self) -> int | None:
        return self._path.stat().st_ino if self._path.exists() else None


def _most_memory_gb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return float(line.split()[1]) / 1024**2
    raise OSError("/proc/self/status: no VmHWM")


def _command(part: str, *words: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.live", part, *map(str, words)]


@contextmanager
def _beside(tilts: int, repeats: int, size: str) -> Iterator[None]:
    """Let another measurement go on at the pace of a real one."""
    with TemporaryDirectory() as data:
        process = subprocess.Popen(
            _command("acquire", data, tilts, repeats, size, 1.0),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        with process:
            process.stdout.readline()
            try:
                yield
            finally:
                process.terminate()
                process.wait()


def live_lines(tilts: int = TILTS, repeats: int = REPEATS, size: str = SIZE) -> Iterator[str]:
    """Yield the lines of the table, as they come."""
    with TemporaryDirectory() as data:
        subprocess.run(
            _command("acquire", data, tilts, repeats, size),
            check=True,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        yield (
            f"{'a volume after the last frame':36}{'angles: seconds (all that is told)':>60}"
            f"{'limit':>8}{'memory':>10}{'limit':>8}"
        )
        with _beside(tilts, repeats, size):
            for layers in (1, 0):
                done = subprocess.run(
                    _command("latencies", data, layers),
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                one = json.loads(done.stdout.splitlines()[-1])
                what = "layers known" if layers else "nothing known"
                shape = " x ".join(map(str, one["shape"][::-1]))
                times = ", ".join(
                    f"{n}: {first_s:.1f} ({end_s:.0f})"
                    for n, (first_s, end_s) in one["seconds"].items()
                )
                yield (
                    f"{f'{shape}, {what}':36}{times:>60}{LATENCY_LIMIT_S:8g}"
                    f"{one['memory_gb']:7.2f} GB{MEMORY_LIMIT_GB:8g}"
                )
                yield f"    {one['message']}"


def _main(part: str, data: str, *words: str) -> None:
    if part == "latencies":
        print(json.dumps(latencies(data, words[0] == "1")))
    else:
        tilts, repeats, size, *pace = words
        acquire(data, int(tilts), int(repeats), size, *map(float, pace))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _main(*sys.argv[1:])
    else:
        for line in live_lines():
            print(line, flush=True)
