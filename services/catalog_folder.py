"""The folder of a catalog: who serves it, and its key."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from mistral_txm.services.held_file import held_file, is_held
from mistral_txm.services.json_files import read_json


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


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder for one service.

    Raises
    ------
    CatalogError
        If another one serves it.
    """
    with held_file(folder / "lock", lambda: _served(folder), patience_s=1.0):
        yield


def _served(folder: Path) -> CatalogError:
    """Say who serves the folder, as far as its files tell."""
    address = read_json(folder / "address.json")
    return CatalogError(
        f"{folder}: its catalog is served already, by process "
        f"{address.get('pid', 'unknown')} at {address.get('uri', 'an unknown address')}; "
        "use that one"
    )


def is_served(folder: Path) -> bool:
    """Return whether a service holds the folder."""
    return is_held(folder / "lock")
