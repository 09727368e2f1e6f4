"""Opens HDF5 files that another process is writing, so that damage is an error and not an endless wait."""

import ctypes
import functools
import os
from pathlib import Path
from typing import Any

import h5py
from h5py._objects import phil

READ_ATTEMPTS = 26
"""How often HDF5 reads a part whose checksum is wrong: it may be in the middle of being written.

It waits 1 ns after the first attempt and twice as long after each further one, 2**25 ns = 0.034 s after the last,
0.067 s in all. Its own 100 attempts would take longer than anybody lives.
"""

DAMAGE = (OSError, RuntimeError, LookupError, TypeError, ValueError)
"""What h5py raises when it comes upon damage: it has no exception of its own."""


def open_growing(path: Path) -> h5py.File:
    """Open a file to read it while another process appends to it (SWMR), or after that was killed.

    Where it is damaged, h5py raises one of `DAMAGE`, here or when something is read, and within a second.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
    return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=_access()))


@functools.cache
def _access() -> Any:
    """Return how such a file is opened. h5py has no name for the number of attempts, the library behind it has."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    set_attempts = ctypes.PyDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
    set_attempts.argtypes = (ctypes.c_int64, ctypes.c_uint)
    with phil:  # one call of HDF5 at a time, as in h5py itself
        if set_attempts(access.id, READ_ATTEMPTS) < 0:
            raise RuntimeError(
                "HDF5 does not take a number of read attempts; install its version 1.10 or later"
            )
    return access
