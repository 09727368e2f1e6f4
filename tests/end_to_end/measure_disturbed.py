"""Measures a series twice in simulation, undisturbed and through everything that can happen, and compares the data.

By hand, at the size of a real measurement: ``python tests/end_to_end/measure_disturbed.py --size medium``. The
acquisition that is disturbed loses the beam, the front end and single frames, is paused by its operator, killed, and
resumed. Prints what came of it as JSON; exits with 1 where the data differ.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

SEED = 11
BEAM_AWAY_S = 1.0
PAUSED_S = 0.5
CCD_TIMEOUT_S = 3.0
"""Beyond the exposure, until the camera counts as hanging: shorter than at a beamline."""
TINY = {
    "sample": {"name": "tiny", "layers_nm": [[-120.0, -40.0], [40.0, 120.0]]},
    "tilts": [
        {"first_deg": -45.0, "last_deg": 45.0, "step_deg": 30.0, "exposure_s": 1.0, "repeats": 2}
    ],
    "azimuths_deg": [0.0, 102.0],
    "flats": {"exposure_s": 1.0, "repeats": 2},
    "darks": {"repeats": 2},
    "return_to_zero": {"repeats": 1},
    "energies_ev": [707.4],
}
DISTURBANCES = {
    "beam lost in an exposure": (0.05, "ring_current: "),
    "front end closed": (0.15, "front_end: "),
    "injection into an exposure": (0.25, "top_up: an injection"),
    "paused by the operator": (0.35, "interruption: pause"),
    "frame dropped": (0.45, "DroppedArrays"),
    "camera hangs": (0.55, "no frame within"),
    "process killed": (0.7, ""),
}
"""After which share of the exposures, and what the log of the run says of it."""


def measurement_of(size: str) -> Any:
    from mistral_txm.plans import Measurement, medium, small

    return {"tiny": lambda: Measurement.from_dict(TINY), "small": small, "medium": medium}[size]()


@contextmanager
def session_in(data: Path, time_scale: float) -> Iterator[Any]:
    """An acquisition at a simulated beamline, as it is started for the night."""
    from mistral_txm.devices import configuration
    from mistral_txm.profile_collection import start

    packaged = Path(configuration.__file__).with_name("simulated.toml").read_text()
    head, ccd = packaged.split("[ccd]")
    data.mkdir(parents=True, exist_ok=True)
    config = data / "beamline.toml"
    config.write_text(
        head + "[ccd]" + ccd.replace("timeout_s = 30.0", f"timeout_s = {CCD_TIMEOUT_S}", 1)
    )
    with start(
        simulated=True, data=data, config=config, seed=SEED, time_scale=time_scale
    ) as session:
        yield session


class Fate:
    """Lets things happen when so many exposures are recorded; a thread, since it waits."""

    def __init__(self, session: Any, planned: int) -> None:
        self._session = session
        self._due = {
            max(1, round(share * planned)): name for name, (share, _) in DISTURBANCES.items()
        }
        self._recorded = 0
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._streams: set[str] = set()
        session.RE.subscribe(self._count)
        threading.Thread(target=self._act, daemon=True).start()

    def _count(self, name: str, doc: dict[str, Any]) -> None:
        if name == "descriptor" and doc["name"] == "primary":
            self._streams.add(doc["uid"])
        if name == "event" and doc["descriptor"] in self._streams:
            self._recorded += 1
            if self._recorded in self._due:
                self._queue.put(self._due[self._recorded])

    def _act(self) -> None:
        faults, RE = self._session.faults, self._session.RE
        while True:
            match self._queue.get():
                case "beam lost in an exposure":
                    faults.beam_lost.put(1)
                    while not faults.beam_dump.get(use_monitor=False):
                        time.sleep(0.02)
                    time.sleep(BEAM_AWAY_S)
                    faults.beam_dump.put(0)
                case "front end closed":
                    faults.front_end_closed.put(1)
                    time.sleep(BEAM_AWAY_S)
                    faults.front_end_closed.put(0)
                case "injection into an exposure":
                    faults.injection.put(1)
                case "paused by the operator":
                    RE.request_pause(False)
                case "frame dropped":
                    faults.ccd_dropped_frame.put(1)
                case "camera hangs":
                    faults.ccd_hang.put(1)
                case "process killed":
                    os.kill(os.getpid(), signal.SIGKILL)


def measure(data: Path, size: str, time_scale: float, *, disturbed: bool) -> None:
    """Measure a series in this process; an operator's pause is resumed after a while."""
    from bluesky.utils import RunEngineInterrupted

    measurement = measurement_of(size)
    with session_in(data, time_scale) as session:
        if disturbed:
            Fate(session, len(measurement.planned_keys()))
        else:  # its frames alone are compared
            for name in ("catalog", "live", "monitor"):
                session.services[name].stop()
        plan = session.vector_tomography(session.instrument, measurement, series="series")
        act = lambda: session.RE(plan)  # noqa: E731  # replaced after a pause
        while True:
            try:
                act()
                return
            except RunEngineInterrupted:
                time.sleep(PAUSED_S)
                act = session.RE.resume


def run(arguments: argparse.Namespace, *command: str) -> tuple[int, float]:
    """Run an acquisition in a process of its own; return its exit code and the seconds that it took."""
    begin_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        timeout=arguments.timeout_s,
        check=False,
    )
    return done.returncode, round(time.monotonic() - begin_s, 1)


def run_part(data: Path, arguments: argparse.Namespace, how: str) -> tuple[int, float]:
    """Measure from the begin."""
    command = [__file__, "--data", str(data), "--size", arguments.size]
    return run(arguments, *command, "--time-scale", str(arguments.time_scale), "--part", how)


def resume(data: Path, arguments: argparse.Namespace) -> tuple[int, float]:
    """Take the rest with the command of an operator."""
    command = "mistral_txm.profile_collection.command_line"
    return run(arguments, "-m", command, "resume", "--data", str(data))


def log_lines(data: Path) -> list[str]:
    """Return what the runs of series in a data folder noted, and by what they were interrupted."""
    from mistral_txm.services.journal import journal_files, read_journal

    lines = []
    for path in journal_files(data / "journal"):
        documents = list(read_journal(path))
        if "series" not in documents[0][1]:
            continue
        for name, doc in documents:
            if name == "event" and "log_text" in doc["data"]:
                lines.append(f"{doc['data']['log_kind']}: {doc['data']['log_text']}")
            if name == "event" and "interruption" in doc["data"]:
                lines.append(f"interruption: {doc['data']['interruption']}")
    return lines


def returns_of(data: Path) -> dict[Any, list[int]]:
    """Return the checksums of the frames at the returns to zero tilt by key, every one that was recorded."""
    from mistral_txm.services.exposures import RETURN
    from mistral_txm.services.verification import read_series

    (record,) = read_series(data)
    found: dict[Any, list[int]] = {}
    for one in record.exposures:
        if one.stream == RETURN:
            found.setdefault(one.key, []).append(one.crc32)
    return found


def compare(quiet: Path, disturbed: Path) -> dict[str, Any]:
    """Compare all frames that count, by key, and say what the logs and the verification tell."""
    from mistral_txm.services.runs import list_runs
    from mistral_txm.services.verification import verify

    (expected,), (found,) = verify(quiet), verify(disturbed)
    lines = log_lines(disturbed)
    return {
        "planned": expected.planned,
        "equal": sum(
            found.accepted[key].crc32 == exposure.crc32
            for key, exposure in expected.accepted.items()
            if key in found.accepted
        ),
        "returns": len(returns_of(quiet)),
        "returns_are_equal": returns_of(quiet) == returns_of(disturbed),
        "missing": len(found.missing),
        "damaged": len(found.damaged),
        "repeated": len(found.repeated),
        "frames": json.loads((disturbed / "summary.json").read_text())["frames"],
        "ends": [run.exit_status for run in list_runs(disturbed) if run.series],
        "log": lines,
        "quiet_log": log_lines(quiet),
        "not_in_log": [
            name
            for name, (_, words) in DISTURBANCES.items()
            if words and not any(words in line for line in lines)
        ],
    }


def whole(data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run everything, one process after the other."""
    quiet, disturbed = data / "undisturbed", data / "disturbed"
    code, quiet_s = run_part(quiet, arguments, "undisturbed")
    assert code == 0, f"the undisturbed measurement ended with {code}"
    code, disturbed_s = run_part(disturbed, arguments, "disturbed")
    assert code == -signal.SIGKILL, f"the disturbed measurement ended with {code}"
    code, resumed_s = resume(disturbed, arguments)
    assert code == 0, f"the resumed measurement ended with {code}"
    seconds = {"undisturbed": quiet_s, "until the kill": disturbed_s, "resumed": resumed_s}
    return {**compare(quiet, disturbed), "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("tiny", "small", "medium"), default="tiny")
    parser.add_argument(
        "--data", type=Path, help="an empty folder that is kept; default: a temporary one"
    )
    parser.add_argument("--time-scale", type=float, default=0.0)
    parser.add_argument("--timeout-s", type=float, default=3600.0, help="of each acquisition")
    parser.add_argument("--part", choices=("undisturbed", "disturbed"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part is not None:
        measure(
            arguments.data,
            arguments.size,
            arguments.time_scale,
            disturbed=arguments.part == "disturbed",
        )
        return 0
    with TemporaryDirectory() if arguments.data is None else nullcontext(arguments.data) as data:
        result = whole(Path(data), arguments)
    print(json.dumps(result))
    return int(result["equal"] != result["planned"] or result["missing"] > 0)


if __name__ == "__main__":
    sys.exit(main())
