"""One acquisition per data folder: the lease that a second one is refused by."""

import getpass
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from mistral_txm.services.held_file import held_file, is_held
from mistral_txm.services.json_files import read_json


class LeaseError(RuntimeError):
    """Another acquisition holds the data folder; the message says who, where and since when."""


@contextmanager
def acquisition_lease(data: Path) -> Iterator[None]:
    """Hold the data folder for one acquisition, until the block ends or the process dies.

    A killed acquisition leaves no lock behind; what the file says only tells the second operator
    about the first.

    Raises
    ------
    LeaseError
        If another acquisition holds it.
    """
    data.mkdir(parents=True, exist_ok=True)
    path = data / "acquisition.lease"
    with held_file(path, lambda: _taken(data, path)) as descriptor:
        holder = {
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield


def _taken(data: Path, path: Path) -> LeaseError:
    """Say who holds the lease, as far as its file tells."""
    try:
        holder = "{user} on {host}, process {pid}, since {since}".format(**read_json(path))
    except KeyError:
        holder = "its holder has not written its name yet"
    return LeaseError(
        f"{data}: another acquisition is running here ({holder}); "
        "end it first, or choose another data folder"
    )


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
        return is_held(path)
    except (FileNotFoundError, ProcessLookupError, ValueError, KeyError, TypeError):
        return False
    except PermissionError:  # alive, and of another user
        return True
