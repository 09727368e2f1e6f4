"""Print the table: `python -m benchmarks`."""

import os
import time

import numba

from benchmarks.acquisition import acquisition_lines
from benchmarks.journal import LIMIT_MS, journal_ms
from benchmarks.projector import projector_lines
from benchmarks.reconstruction import reconstruction_lines
from benchmarks.simulated_beamline import simulated_beamline_lines


def main() -> None:
    """Run all benchmarks."""
    start = time.perf_counter()
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, {numba.get_num_threads()} threads, load {load:.1f} before the start"
    )
    print("volume 400 x 400 x 80, 87 views at each of 2 azimuths, float32; best of 2, seconds\n")
    print(f"{'':34}{'ours':>8}{'peer':>8}{'ratio':>8}  peer")
    for line in projector_lines():
        ratio = line.peer_s / line.ours_s
        print(
            f"{line.what:34}{line.ours_s:8.2f}{line.peer_s:8.2f}{ratio:8.1f}  {line.peer} ({line.note})",
            flush=True,
        )
    print()
    for text in reconstruction_lines():
        print(text, flush=True)
    print()
    median_ms, p99_ms = journal_ms()
    print(
        f"journal, a document synced to disk: median {median_ms:.2f} ms, 99th percentile {p99_ms:.2f} ms "
        f"(limit {LIMIT_MS:g} ms)"
    )
    print("", *simulated_beamline_lines(), "", sep="\n", flush=True)
    for text in acquisition_lines():
        print(text, flush=True)
    print(
        f"\n{time.perf_counter() - start:.0f} s in all; a ratio above 1 means that ours is faster"
    )


if __name__ == "__main__":
    main()
