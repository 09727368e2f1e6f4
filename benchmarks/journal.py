"""The journal against the 20 ms that the RunEngine may spend on a document."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mistral_txm.services.journal import JournalWriter

DOCUMENTS = 1000
LIMIT_MS = 20.0


def journal_ms() -> tuple[float, float]:
    """Return median and 99th percentile of the time per document, synced to disk, ms."""
    data = {f"column_{number}": 0.1 * number for number in range(15)}
    durations_ms = []
    with TemporaryDirectory() as folder, JournalWriter(Path(folder)) as write:
        write("start", {"uid": "run", "time": 0.0})
        write(
            "descriptor", {"uid": "stream", "run_start": "run", "name": "primary", "data_keys": {}}
        )
        for number in range(DOCUMENTS):
            event = {
                "uid": str(number),
                "descriptor": "stream",
                "seq_num": number,
                "data": data,
                "time": 0.0,
            }
            begin_s = time.perf_counter()
            write("event", event)
            durations_ms.append(1e3 * (time.perf_counter() - begin_s))
    return float(np.median(durations_ms)), float(np.percentile(durations_ms, 99))
