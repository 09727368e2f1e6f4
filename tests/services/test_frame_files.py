"""Frames in files that are written, renamed, damaged or gone."""

import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from mistral_txm.services.frame_files import (
    FrameError,
    existing,
    frame_crc32,
    path_of,
    read_frames,
)

DATASET = "/entry/data/data"


def frames(count: int) -> np.ndarray:
    return np.arange(count * 12, dtype=np.uint16).reshape(count, 3, 4)


@pytest.mark.parametrize("concurrent", [True, False])
def test_frames_are_read_while_and_after_they_are_written(tmp_path: Path, concurrent: bool) -> None:
    path = tmp_path / "a.h5"
    temporary = tmp_path / "a.h5.tmp"
    with h5py.File(temporary, "w", libver="latest" if concurrent else None) as file:
        data = file.create_dataset(
            DATASET, (0, 3, 4), "u2", maxshape=(None, 3, 4), chunks=(1, 3, 4)
        )
        if concurrent:
            file.swmr_mode = True
        data.resize(3, axis=0)
        data[...] = frames(3)
        data.flush()
        if concurrent:
            assert existing(path) == temporary
            np.testing.assert_array_equal(
                read_frames(path, DATASET, [2, 0, 0, 1]), frames(3)[[2, 0, 0, 1]]
            )
    temporary.rename(path)
    assert existing(path) == path
    np.testing.assert_array_equal(read_frames(path, DATASET, [0, 1, 2]), frames(3))
    assert read_frames(path, DATASET, []).shape == (0, 3, 4)


def test_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(FrameError, match="no such file, also not with"):
        read_frames(path, DATASET, [0])
    path.write_bytes(b"not HDF5")
    with pytest.raises(FrameError, match="not readable as HDF5"):
        read_frames(path, DATASET, [0])
    with h5py.File(path, "w") as file:
        file[DATASET] = frames(2)
    with pytest.raises(FrameError, match="has 2"):
        read_frames(path, DATASET, [2])
    with pytest.raises(FrameError, match="cannot be read"):
        read_frames(path, "/nothing", [0])
    with pytest.raises(FrameError, match="not a local file"):
        path_of("http://somewhere/a.h5")


def test_the_checksum_is_that_of_little_endian_numbers() -> None:
    frame = np.array([[258, 3]], dtype=">u2")
    assert frame_crc32(frame) == zlib.crc32(bytes([2, 1, 3, 0]))
    assert frame_crc32(frame.T) == frame_crc32(frame.astype("<u2").T.copy())
