"""A file that one process holds at a time, so that what it stands for is done once.

The operating system keeps the lock (``flock``) and drops it when the process ends, however it does: a killed holder
leaves nothing to clear away. Child processes do not inherit it.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.05
"""Time between two tries, s."""


@contextlib.contextmanager
def held_file(
    path: Path, refusal: Callable[[], Exception], patience_s: float = 0.0
) -> Iterator[int]:
    """Hold a file until the block ends or the process dies; yields its descriptor.

    Parameters
    ----------
    path
        The file; made, empty, if it is not there.
    refusal
        Makes what is raised if another one holds it.
    patience_s
        How long to try, s; `is_held` holds a file for an instant, too.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline_s = time.monotonic() + patience_s
        while not _locked(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline_s:
                raise refusal()
            time.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a process holds the file now; one that is not there is not held."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
