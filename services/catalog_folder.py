"""The folder of a catalog: who serves it, its key, and the small files that tell of it."""

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

POLL_S = 0.05
"""Time between two looks at the folder, s."""


class CatalogError(RuntimeError):
    """The catalog cannot be served or opened; the message says which one, why, and what to do."""


def catalog_folder(data: Path) -> Path:
    """Return the catalog's folder in a data folder; it is made if it is not there."""
    folder = data / "catalog"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def api_key_of(folder: Path) -> str:
    """Return the key of the catalog; it is made at the first need, readable by its owner alone."""
    path = folder / "api_key"
    if not path.exists():
        new = folder / f"api_key.{os.getpid()}"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    return path.read_text().strip()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file at once, so that readers see the old or the new content."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(content))
    new.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a file of ours, nothing if it is not there."""
    try:
        return cast("dict[str, Any]", json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder for one service; the system drops the lock when the process ends, however it
    does."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        for _ in range(20):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(POLL_S)  # somebody who only looks holds it for an instant
        else:
            address = read_json(folder / "address.json")
            raise CatalogError(
                f"{folder}: its catalog is served already, by process "
                f"{address.get('pid', 'unknown')} at {address.get('uri', 'an unknown address')}; "
                "use that one"
            )
        yield
    finally:
        os.close(descriptor)


def unlocked(folder: Path) -> bool:
    """Return whether no service holds the folder."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
