"""Frames in files that are written, renamed, damaged or gone."""

import subprocess
import sys
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


def test_a_file_whose_writer_was_killed_is_read_under_any_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "writing", "w", libver="latest") as file:
        data = file.create_dataset(DATASET, data=frames(3), chunks=(1, 3, 4))
        file.swmr_mode = True
        data.flush()
        content = (tmp_path / "writing").read_bytes()
    for name in ("a.h5.tmp", "b.h5"):
        (tmp_path / name).write_bytes(content)
    for name in ("a.h5", "b.h5"):
        np.testing.assert_array_equal(read_frames(tmp_path / name, DATASET, [1]), frames(3)[[1]])


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


READER = """
import sys
from pathlib import Path
from mistral_txm.devices.frame_store import FrameRefused, OpenFile
from mistral_txm.services.frame_files import FrameError, read_frames

for name in sys.argv[1:]:
    path = Path(name)
    for read in (
        lambda: read_frames(path, "/entry/data/data", [0]),
        lambda: OpenFile(name, path, "", (3, 4)).read(0),
    ):
        try:
            print("read", read().shape)
        except (FrameError, FrameRefused) as error:
            print(type(error).__name__, error)
"""


@pytest.mark.parametrize("suffix", ["", ".tmp"])
def test_a_damaged_file_is_refused_and_holds_nobody_up(tmp_path: Path, suffix: str) -> None:
    """Read in a process of its own: one that hangs in HDF5 can be ended in no other way."""
    finals = []
    for first, last in ((8, 48), (48, 179), (550, 804)):  # superblock, first group, data set
        finals.append(tmp_path / f"{first}.h5")
        path = tmp_path / f"{first}.h5{suffix}"
        with h5py.File(path, "w", libver="latest") as file:
            data = file.create_dataset(
                DATASET, (0, 3, 4), "u2", maxshape=(None, 3, 4), chunks=(1, 3, 4)
            )
            file.swmr_mode = True
            data.resize(3, axis=0)
            data[...] = frames(3)
            data.flush()
            content = bytearray(path.read_bytes())  # as a killed writer leaves it
        if not suffix:
            content = bytearray(path.read_bytes())
        content[first:last] = bytes(byte ^ 0xFF for byte in content[first:last])
        path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", READER, *map(str, finals)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["FrameError", "FrameRefused"] * len(finals)
    for line, path in zip(lines[::2], finals, strict=True):
        assert str(path) in line


def test_the_checksum_is_that_of_little_endian_numbers() -> None:
    frame = np.array([[258, 3]], dtype=">u2")
    assert frame_crc32(frame) == zlib.crc32(bytes([2, 1, 3, 0]))
    assert frame_crc32(frame.T) == frame_crc32(frame.astype("<u2").T.copy())
