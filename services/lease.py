"""One acquisition per data folder: the lease that a second one is refused by."""

import fcntl
import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path


class LeaseError(RuntimeError):
    """Another acquisition holds the data folder; the message says who, where and since when."""


@contextmanager
def acquisition_lease(data: Path) -> Iterator[None]:
    """Hold the data folder for one acquisition, until the block ends or the process dies.

    The operating system keeps the lock (``flock``), so a killed acquisition leaves none behind; the
    file beside it only tells the second operator about the first.

    Raises
    ------
    LeaseError
        If another acquisition holds it.
    """
    data.mkdir(parents=True, exist_ok=True)
    path = data / "acquisition.lease"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LeaseError(
                f"{data}: another acquisition is running here ({_holder(path)}); "
                "end it first, or choose another data folder"
            ) from None
        holder = {
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    """Say who holds the lease, as far as its file tells."""
    try:
        holder = json.loads(path.read_text())
        return "{user} on {host}, process {pid}, since {since}".format(**holder)
    except (ValueError, KeyError, TypeError):
        return "its holder has not written its name yet"


def acquiring(data: Path) -> bool:
    """Return whether an acquisition holds the data folder now.

    The lock is only asked where the holder that the lease names may still be alive, so that asking
    never stands in the way of an acquisition that starts.
    """
    path = data / "acquisition.lease"
    try:
        holder = json.loads(path.read_text())
        if holder["host"] == socket.gethostname():
            os.kill(int(holder["pid"]), 0)
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError, TypeError):
        return False
    except PermissionError:  # alive, and of another user
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
