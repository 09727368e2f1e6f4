"""The acquisition against its limits: time beside the camera, time per document, memory.

Measured at a simulated beamline at time scale 0, each part in a process of its own, since a process has one
control server. By hand, with all settings: ``python -m benchmarks.acquisition``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

EXPOSURE_LIMIT_MS = 60.0
DOCUMENT_LIMIT_MS = 20.0
GROWTH_LIMIT_KB = 300.0
"""Per 1000 exposures: less than 1 % of a process over 10 000 of them. The short settings end before caches are full."""
SIZES = {256: "small", 1024: "paper"}
SERVICES = ("catalog", "live", "monitor")
SHORT = {"pace_exposures": 20, "angles": 5, "repeats": 20, "sample_every": 50}
FULL = {"pace_exposures": 200, "angles": 87, "repeats": 20, "sample_every": 500}


@contextmanager
def _session(pixels: int) -> Iterator[Any]:
    from mistral_txm.profile_collection import start

    with TemporaryDirectory() as data, start(simulated=True, data=data, size=SIZES[pixels]) as made:
        yield made


def _measurement(angles: int, repeats: int) -> Any:
    from mistral_txm.plans import Measurement

    half_deg = (angles - 1) / 2
    tilts = {"first_deg": -half_deg, "last_deg": half_deg, "exposure_s": 8.0, "repeats": repeats}
    return Measurement.from_dict(
        {
            "sample": {"name": "benchmark"},
            "tilts": [tilts],
            "azimuths_deg": [0.0],
            "flats": {"exposure_s": 3.0, "repeats": 2},
            "darks": {"repeats": 2},
            "energies_ev": [707.4],
        }
    )


def _measure(session: Any, measurement: Any, series: str) -> None:
    session.RE(session.vector_tomography(session.instrument, measurement, series=series))


def pace(pixels: int, exposures: int) -> dict[str, float]:
    """Return ms per exposure of a plan, and of the camera alone in the same state, with no service about.

    That of the plan is the time between neighbouring Events of one file; the median counts.
    """
    with _session(pixels) as session:
        for name in SERVICES:
            session.services[name].stop()
        _measure(session, _measurement(1, 2), "warm")
        begin_s = time.process_time()
        _measure(session, _measurement(1, exposures), "paced")
        processor_s = time.process_time() - begin_s
        gaps_ms = _gaps_ms(session.data / "journal")
        camera_ms = _camera_ms(session.instrument, exposures)
    return {
        "plan_ms": float(np.median(gaps_ms)),
        "camera_ms": float(np.median(camera_ms)),
        "beside_ms": float(np.median(gaps_ms) - np.median(camera_ms)),
        "p99_ms": float(np.percentile(gaps_ms, 99)),
        "processor_ms": 1000 * processor_s / (2 * exposures),
    }


def _gaps_ms(journal: Path) -> list[float]:
    """Return the times between neighbouring exposures of the same file."""
    gaps_ms = []
    for path in journal.glob("*.jsonl"):
        streams: dict[str, str] = {}
        before: tuple[int, float] | None = None
        for line in path.read_text().splitlines()[1:]:
            entry = json.loads(line)
            doc = entry["doc"]
            if entry["name"] == "descriptor":
                streams[doc["uid"]] = doc["name"]
            if entry["name"] == "event" and streams[doc["descriptor"]] == "primary":
                number, now_s = doc["data"]["ccd_frame_number"], entry["monotonic_s"]
                if before is not None and number == before[0] + 1:
                    gaps_ms.append(1000 * (now_s - before[1]))
                before = number, now_s
    return gaps_ms


def _camera_ms(instrument: Any, exposures: int) -> list[float]:
    """Return how long the camera's put-callback takes: exposing, rendering, writing the frame."""
    import epics

    ccd = instrument.ccd
    for device, target in (
        (instrument.sample_position, "in"),
        (instrument.theta, 0.0),
        (instrument.polarization, 1),
    ):
        device.set(target).wait(60)
    ccd.stage()
    ccd.cam.acquire_time.set(8.0).wait(10)
    ccd.frame_file.set("camera alone").wait(10)
    instrument.shutter.set("open").wait(10)
    acquire = epics.PV(ccd.cam.acquire.setpoint_pvname)
    durations_ms = []
    for _ in range(exposures + 1):  # the first renders the view
        done = threading.Event()
        begin_s = time.monotonic()
        acquire.put(1, callback=lambda done=done, **_: done.set())
        if not done.wait(60):
            raise TimeoutError("the simulated camera did not finish")
        durations_ms.append(1000 * (time.monotonic() - begin_s))
    instrument.shutter.set("closed").wait(10)
    ccd.frame_file.set(None).wait(10)
    ccd.unstage()
    return durations_ms[1:]


class _Watch:
    """Times the journal and the RunEngine at each document, and samples memory between them."""

    def __init__(self, sample_every: int) -> None:
        self.state = "up"
        # Arrays, since what is noted here must not look like a leak.
        self.durations_ms: dict[str, dict[str, array[float]]] = defaultdict(
            lambda: defaultdict(partial(array, "d"))
        )
        self.memory_kb: dict[str, list[float]] = defaultdict(list)
        self.processes: dict[str, int] = {}
        self._sample_every = sample_every
        self._events = 0

    def timed(self, work: Callable[..., None], what: str) -> Any:
        """Return `work`, timed: on the wall, and on the processor."""
        durations_ms, processor_ms = self.durations_ms[what], self.durations_ms[f"{what} cpu"]

        def run(*arguments: Any) -> None:
            begin_s, processor_s = time.perf_counter(), time.thread_time()
            work(*arguments)
            durations_ms[self.state].append(1000 * (time.perf_counter() - begin_s))
            processor_ms[self.state].append(1000 * (time.thread_time() - processor_s))

        return run

    def sampling(self, work: Callable[..., None]) -> Any:
        """Return `work`, with a look at the memory after some of the Events."""

        def run(name: Any, doc: Mapping[str, Any]) -> None:
            work(name, doc)
            if name.name == "event" and "key_repeat" in doc["data"]:
                if self._events % self._sample_every == 0:
                    for process, number in self.processes.items():
                        self.memory_kb[process].append(_memory_kb(number))
                self._events += 1

        return run


def _memory_kb(process: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    raise ProcessLookupError(process)


def endurance(angles: int, repeats: int, sample_every: int) -> dict[str, Any]:
    """Measure three series, with the services up, stopped in their work, and killed.

    Returns times per document in each of them, and the memory over all.
    """
    from mistral_txm.services.journal import JournalWriter

    watch = _Watch(sample_every)
    JournalWriter.__call__ = watch.timed(JournalWriter.__call__, "journal")  # type: ignore[method-assign]
    with _session(256) as session:
        dispatcher = session.RE.dispatcher
        dispatcher.process = watch.sampling(watch.timed(dispatcher.process, "engine"))
        watch.processes = {
            "acquisition": os.getpid(),
            "beamline": session.services["simulated_beamline"].process_id,
        }
        services = [session.services[name] for name in SERVICES]
        begin_s = time.monotonic()
        try:
            for state, number in (("up", None), ("slow", signal.SIGSTOP), ("down", signal.SIGKILL)):
                watch.state = state
                for service in services if number is not None else ():
                    os.kill(service.process_id, number)
                _measure(session, _measurement(angles, repeats), state)
        finally:
            for service in services:
                if service.running:
                    os.kill(service.process_id, signal.SIGCONT)
        seconds = time.monotonic() - begin_s
    exposures = 3 * 2 * angles * repeats
    return {
        "exposures": exposures,
        "seconds": seconds,
        **{what: _percentiles(found) for what, found in watch.durations_ms.items()},
        "memory_kb": watch.memory_kb,
        "slope_kb": {
            name: _slope(values, sample_every) for name, values in watch.memory_kb.items()
        },
    }


def _percentiles(durations_ms: Mapping[str, array[float]]) -> dict[str, list[float]]:
    """Return number, median, 99th percentile and the largest."""
    return {
        state: [len(values), *np.percentile(values, [50, 99, 100]).tolist()]
        for state, values in durations_ms.items()
    }


def _slope(memory_kb: list[float], sample_every: int) -> float:
    """Return the growth per 1000 exposures, after the first third, in which caches fill."""
    settled_kb = memory_kb[len(memory_kb) // 3 :]
    per_sample = np.polyfit(np.arange(len(settled_kb)), settled_kb, 1)[0]
    return float(per_sample * 1000 / sample_every)


def _in_own_process(part: str, *numbers: int) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.acquisition", part, *map(str, numbers)],
        check=True,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def acquisition_lines(settings: Mapping[str, int] = SHORT) -> Iterator[str]:
    """Yield the lines of the tables, as they come."""
    paces = {
        pixels: _in_own_process("pace", pixels, settings["pace_exposures"]) for pixels in SIZES
    }
    yield (
        f"{'acquisition, time scale 0':36}"
        + "".join(f"{n} x {n}".rjust(14) for n in SIZES)
        + f"{'limit':>10}"
    )
    for what, key, limit in (
        ("exposure beside the camera", "beside_ms", f"{EXPOSURE_LIMIT_MS:g}"),
        ("exposure", "plan_ms", ""),
        ("exposure, 99th percentile", "p99_ms", ""),
        ("camera: exposes, renders, writes", "camera_ms", ""),
        ("processor time, moves and all", "processor_ms", ""),
    ):
        values = "".join(f"{result[key]:11.1f} ms" for result in paces.values())
        yield f"{what:36}{values}{limit:>10}"
    long = _in_own_process(
        "endurance", settings["angles"], settings["repeats"], settings["sample_every"]
    )
    states = tuple(long["engine"])
    yield ""
    yield (
        f"{'a document, catalog, live, monitor':36}"
        + "".join(state.rjust(14) for state in states)
        + f"{'limit':>10}"
    )
    for what, key, column, limit in (
        ("RunEngine, median", "engine", 1, ""),
        ("RunEngine, 99th percentile", "engine", 2, f"{DOCUMENT_LIMIT_MS:g}"),
        ("RunEngine, longest", "engine", 3, ""),
        ("journal in it, 99th percentile", "journal", 2, ""),
        ("processor time, 99th percentile", "engine cpu", 2, ""),
    ):
        values = "".join(f"{long[key][state][column]:11.2f} ms" for state in states)
        yield f"{what:36}{values}{limit:>10}"
    numbers = "".join(f"{long['engine'][state][0]:14d}" for state in states)
    yield f"{'documents':36}{numbers}"
    memory_kb = long["memory_kb"]
    yield ""
    yield (
        f"{'memory, {} exposures, {:.0f} s'.format(long['exposures'], long['seconds']):36}"
        + "".join(name.rjust(14) for name in memory_kb)
        + f"{'limit':>10}"
    )
    slopes = "".join(f"{long['slope_kb'][name]:11.0f} kB" for name in memory_kb)
    limit = f"{GROWTH_LIMIT_KB:g}" if settings is FULL else ""
    yield f"{'growth per 1000, last two thirds':36}{slopes}{limit:>10}"
    for what, pick in (
        ("growth in all", lambda values: values[-1] - values[0]),
        ("at the end", lambda values: values[-1]),
    ):
        values = "".join(f"{pick(kb) / 1024:11.1f} MB" for kb in memory_kb.values())
        yield f"{what:36}{values}"


PARTS: dict[str, Callable[..., Any]] = {"pace": pace, "endurance": endurance}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(PARTS[sys.argv[1]](*map(int, sys.argv[2:]))))
    else:
        for line in acquisition_lines(FULL):
            print(line, flush=True)
