"""Frames in HDF5 files, also in files that are still being written."""

import zlib
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import h5py
import numpy as np
from numpy.typing import NDArray

from mistral_txm.devices.growing_file import DAMAGE, open_growing

TEMPORARY_SUFFIX = ".tmp"
"""Suffix of a file that is still being written; the detector's server drops it at the end."""


class FrameError(RuntimeError):
    """A frame cannot be read; the message says which, from where, and why."""


def path_of(uri: str) -> Path:
    """Return the path that a ``file:`` address stands for.

    >>> path_of("file://localhost/data/frames/a%20b.h5").as_posix()
    '/data/frames/a b.h5'

    Raises
    ------
    FrameError
        If the address is not one of a local file.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise FrameError(f"{uri}: not a local file; expected file://localhost/..")
    return Path(unquote(parts.path))


def existing(path: Path) -> Path | None:
    """Return where a file of frames is now, under its name or its temporary one, if anywhere.

    The final name is asked again at the end, since the file may be renamed between the two
    questions.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    return next((name for name in (path, temporary, path) if name.exists()), None)


@contextmanager
def open_frames(path: Path) -> Any:
    """Open a file of frames to read it, after it was written or while it is.

    Raises
    ------
    FrameError
        If there is no such file, or it cannot be opened.
    """
    file = _open(path)
    try:
        yield file
    finally:
        file.close()


def _open(path: Path) -> h5py.File:
    cause: Exception | None = None
    for _ in range(3):
        found = existing(path)
        if found is None:
            raise FrameError(
                f"{path}: no such file, also not with {TEMPORARY_SUFFIX}; was it moved or deleted?"
            )
        # One whose writer was killed stays marked as open, also where a person gives it its name.
        ways = (h5py.File, open_growing) if found == path else (open_growing, h5py.File)
        for open_file in ways:
            try:
                return open_file(found)
            except FileNotFoundError:
                break  # renamed meanwhile
            except DAMAGE as error:
                cause = cause or error
        if existing(path) == found:
            break
    raise FrameError(f"{path}: not readable as HDF5 ({cause})")


def read_frames(path: Path, dataset: str, numbers: Sequence[int]) -> NDArray[Any]:
    """Read frames ``[number, y, x]`` from one file.

    Parameters
    ----------
    path
        The file's final name; its temporary one is tried too.
    dataset
        Path of the data set ``[frame, y, x]`` in the file.
    numbers
        Frame numbers in the file, from 0, in any order, each any number of times.

    Raises
    ------
    FrameError
        If the file, the data set or one of the frames is missing or damaged.
    """
    with open_frames(path) as file:
        try:
            frames = file[dataset]
            if file.swmr_mode:
                frames.refresh()
            if numbers and not 0 <= min(numbers) <= max(numbers) < frames.shape[0]:
                raise FrameError(
                    f"{path}: frames {min(numbers)} to {max(numbers)} were asked for, "
                    f"{dataset} has {frames.shape[0]}"
                )
            return _read(frames, numbers)
        except FrameError:
            raise
        except DAMAGE as error:
            raise FrameError(f"{path}: {dataset} cannot be read ({error})") from error


def _read(frames: h5py.Dataset, numbers: Sequence[int]) -> NDArray[Any]:
    """Read runs of neighbouring frames at once."""
    found = np.empty((len(numbers), *frames.shape[1:]), frames.dtype)
    first = 0
    while first < len(numbers):
        last = first + 1
        while last < len(numbers) and numbers[last] == numbers[last - 1] + 1:
            last += 1
        start = numbers[first]
        frames.read_direct(found, np.s_[start : start + last - first], np.s_[first:last])
        first = last
    return found


def frame_crc32(frame: NDArray[np.unsignedinteger[Any]]) -> int:
    """Return the CRC-32, as of zlib, of a frame's uint16 numbers, little-endian, in C order.

    >>> frame = np.array([[1, 2], [3, 4]], dtype=np.uint16)
    >>> frame_crc32(frame) == zlib.crc32(bytes([1, 0, 2, 0, 3, 0, 4, 0]))
    True
    """
    return zlib.crc32(cast("Any", np.ascontiguousarray(frame, dtype="<u2")))
