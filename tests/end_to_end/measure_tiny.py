"""Measures a tiny series in a process of its own, disturbs a service if asked to, and prints what was recorded.

Usage: measure_tiny.py DATA [DOCUMENTS-WHAT-SERVICE]...: after so many documents pause, wake or kill live or catalog.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from mistral_txm.plans import Measurement, vector_tomography
from mistral_txm.profile_collection import start
from mistral_txm.services.catalog import wait_until_written
from mistral_txm.services.live_files import read_status
from mistral_txm.services.runs import list_runs
from mistral_txm.services.verification import read_series

TINY = {
    "sample": {"name": "tiny", "layers_nm": [[-120.0, -40.0], [40.0, 120.0]]},
    "tilts": [
        {"first_deg": -45.0, "last_deg": 45.0, "step_deg": 45.0, "exposure_s": 8.0, "repeats": 2}
    ],
    "azimuths_deg": [0.0, 102.0],
    "flats": {"exposure_s": 3.0, "repeats": 2},
    "darks": {"repeats": 2},
    "energies_ev": [707.4],
}
SIGNALS = {"pause": signal.SIGSTOP, "wake": signal.SIGCONT, "kill": signal.SIGKILL}


def disturb(session, how, journal, hit):
    """Hit each service when so many documents are written."""
    for documents, what, name in how:
        while sum(path.read_bytes().count(b"\n") for path in journal.glob("*.jsonl")) < documents:
            time.sleep(0.01)
        os.kill(session.services[name].process_id, SIGNALS[what])
        hit.append((what, name))


def main(data, *words):
    """Measure, and print events, frames, and what the services made of it."""
    with start(simulated=True, data=data, seed=11) as session:
        how = [(int(documents), *rest) for documents, *rest in (word.split("-") for word in words)]
        hit = []
        threading.Thread(
            target=disturb, args=(session, how, data / "journal", hit), daemon=True
        ).start()
        measurement = Measurement.from_dict(TINY)
        plan = vector_tomography(session.instrument, measurement, series="tiny")
        session.RE(plan)
        written = wait_until_written(data, 300)
        status = data / "live" / "tiny" / "status.json"
        deadline = time.monotonic() + 800  # where nothing is compiled yet, that takes minutes
        while not (status.exists() and read_status(status)["state"] == "complete"):
            assert time.monotonic() < deadline, (
                status.read_text() if status.exists() else "no status"
            )
            time.sleep(0.1)
        state = read_status(status)["state"]
    (record,) = read_series(data, "tiny")
    result = {
        "exposures": [
            [one.stream, *one.key, one.theta_deg, one.polarization, one.frame_number, one.crc32]
            for one in record.exposures
        ],
        "ends": [run.exit_status for run in list_runs(data) if run.series],
        "written": written,
        "live": state,
        "hit": len(hit),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
