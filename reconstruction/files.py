"""What all file formats here share: errors of one line, files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["FileError", "open_hdf5", "read_array", "replaced_when_complete", "sha256_of"]


class FileError(ValueError):
    """A file cannot be read or written: one line with its name and what was expected."""


@contextmanager
def replaced_when_complete(path: Path, expected_bytes: int = 0) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` on success, remove it on failure.

    A reader sees the old file or the new one, never a part. Written data are on disk (fsync) before
    the rename. Whether there is room for `expected_bytes` is seen before anything is written: the
    HDF5 library cannot close a file that the disk has no room for.

    Raises `FileError` if the folder does not exist, cannot be written, or has no room.
    """
    path = Path(path)
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}", dir=path.parent
        )
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from error
    temporary = Path(name)
    try:
        _reserve(descriptor, expected_bytes)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(
            f"{path}: cannot be written: {error.strerror}; {expected_bytes / 1e6:.1f} MB are needed there"
        ) from error
    finally:
        os.close(descriptor)
    try:
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _reserve(descriptor: int, size: int) -> None:
    """Take so many bytes of the disk and give them back."""
    if size > 0 and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, 0)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from error


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading.

    Raises `FileError` if it is missing or no HDF5 file, and for what h5py raises in the block when it
    comes upon damage.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"{path}: is a folder; expected an HDF5 file")
    try:
        is_hdf5 = h5py.is_hdf5(path)
        file = h5py.File(path, "r") if is_hdf5 else None
    except OSError as error:
        raise FileError(f"{path}: cannot be read as HDF5: {_first_line(error)}") from error
    if file is None:
        if not path.exists():
            raise FileError(f"{path}: no such file")
        raise FileError(f"{path}: not an HDF5 file")
    with file:
        try:
            yield file
        except FileError:
            raise
        except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
            # h5py has no exception of its own: which of these it is depends on what is damaged.
            raise FileError(f"{path}: damaged, or not as expected: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_array(
    path: Path,
    group: Any,
    name: str,
    *,
    shape: tuple[int | None, ...] | None = None,
    dtype: type[np.generic] = np.float32,
    finite: bool = True,
    masked: bool = False,
) -> NDArray[Any]:
    """Return a dataset of an open HDF5 file, checked.

    `shape` is what is expected, None for any length. Raises `FileError` if the dataset is missing,
    has another shape, is not numeric, cannot be read, or (with `finite`) holds NaN or Inf. With
    `masked`, NaN stands for a pixel that says nothing and is let through.
    """
    dataset = group.get(name)
    where = f"{path}: dataset {f'{group.name}/{name}'.replace('//', '/').lstrip('/')}"
    if not isinstance(dataset, h5py.Dataset):
        raise FileError(
            f"{where} is missing (found: {', '.join(sorted(map(str, group))) or 'nothing'})"
        )
    if dataset.dtype.kind not in "fiub":
        raise FileError(f"{where} holds {dataset.dtype}; expected numbers")
    if shape is not None:
        fits = len(shape) == dataset.ndim and all(
            want is None or want == have for want, have in zip(shape, dataset.shape, strict=False)
        )
        if not fits or 0 in dataset.shape:
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise FileError(f"{where} has shape {dataset.shape}; expected ({wanted})")
    try:
        values = np.asarray(dataset[()], dtype=dtype)
    except OSError as error:
        raise FileError(f"{where} is damaged: {_first_line(error)}") from error
    if finite and np.issubdtype(dtype, np.floating):
        good = np.isfinite(values) | (masked & np.isnan(values))
        if not good.all():
            first = tuple(int(i) for i in np.argwhere(~good)[0])
            raise FileError(
                f"{where} holds {np.count_nonzero(~good)} values that are "
                f"{'Inf' if masked else 'NaN or Inf'}, the first at index {first}; mask or "
                "interpolate them, or leave that view out"
            )
    return values
