"""The file that the simulated camera writes: one growing HDF5 dataset, readable while it grows."""

import errno
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mistral_txm.simulated_beamline.area_detector import Array

DATASET = "/entry/data/data"
UNIQUE_ID_DATASET = "/entry/instrument/NDAttributes/NDArrayUniqueId"

RESERVE_BYTES = 4 * 2**20
"""What a disk keeps free, for the rest of a file that is open and for the journal's last lines."""

UINT16 = np.dtype("<u2")

DAMAGED_BYTES = 16
"""How much of a frame `FrameFile.damage` changes."""


class FrameFile:
    """A single-writer-multiple-readers HDF5 file of frames of one shape and type.

    The frames are in `DATASET`, shape (captured, ny, nx), one chunk per frame, flushed one by one:
    a reader that opens the file with `swmr=True` sees every appended frame, also after the writer
    was killed. While it grows, the file is named `final_path` + `temporary_suffix`; `complete`
    gives it its final name. Without `swmr` nobody can read it until it is closed.

    Raises FileExistsError if either name is taken: what was exposed is never overwritten. Other
    OSError where the folder cannot be written.
    """

    def __init__(
        self,
        final_path: Path,
        temporary_suffix: str,
        shape_vu: tuple[int, ...],
        dtype: np.dtype[Any] = UINT16,
        *,
        swmr: bool = True,
    ) -> None:
        self.final_path = final_path
        self.path = final_path.with_name(final_path.name + temporary_suffix)
        self.shape_vu = shape_vu
        self.dtype = dtype
        if final_path.exists():
            raise FileExistsError(f"{final_path}: exists already; frames are never overwritten")
        _keep_reserve(self.path.parent, 0)
        self._damaged_offsets: list[int] = []
        self._file = h5py.File(self.path, "x", libver="latest")
        entry = self._file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        data = entry.create_group("data")
        data.attrs["NX_class"] = "NXdata"
        data.attrs["signal"] = "data"
        self._frames = data.create_dataset(
            "data",
            shape=(0, *shape_vu),
            maxshape=(None, *shape_vu),
            chunks=(1, *shape_vu),
            dtype=dtype,
        )
        self._ids = self._file.create_dataset(
            UNIQUE_ID_DATASET, shape=(0,), maxshape=(None,), chunks=(1024,), dtype="<i4"
        )
        self._file.swmr_mode = swmr

    def append(self, frame_vu: Array, unique_id: int) -> int:
        """Append one frame and flush it; returns its index in the file.

        Raises ValueError for a frame of another shape or type than the file's.
        """
        if frame_vu.shape != self.shape_vu or frame_vu.dtype != self.dtype:
            raise ValueError(
                f"frame ignored: it is {frame_vu.dtype} {frame_vu.shape}, those of "
                f"{self.final_path.name} are {self.dtype} {self.shape_vu}"
            )
        _keep_reserve(self.path.parent, frame_vu.nbytes)
        index = int(self._frames.shape[0])
        self._ids.resize(index + 1, axis=0)
        self._ids[index] = unique_id
        self._ids.flush()
        self._frames.resize(index + 1, axis=0)
        self._frames[index] = frame_vu
        self._frames.flush()
        return index

    def damage(self, index: int) -> None:
        """Let some bytes of a frame change on the disk, behind HDF5's back, once it is closed."""
        chunk = self._frames.id.get_chunk_info_by_coord((index, *(0 for _ in self.shape_vu)))
        self._damaged_offsets.append(int(chunk.byte_offset))

    def close(self) -> None:
        """Close the file; it keeps its temporary name, as files do that are not complete."""
        self._file.close()
        if self._damaged_offsets:
            with self.path.open("r+b") as raw:
                for offset in self._damaged_offsets:
                    raw.seek(offset)
                    flipped = bytes(byte ^ 0xFF for byte in raw.read(DAMAGED_BYTES))
                    raw.seek(offset)
                    raw.write(flipped)

    def complete(self) -> None:
        """Close the file and give it its final name."""
        self.close()
        if self.path != self.final_path:
            self.path.rename(self.final_path)


def _keep_reserve(folder: Path, size: int) -> None:
    """Refuse to fill a disk: HDF5 damages its file there, or ends the process."""
    if shutil.disk_usage(folder).free < size + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))
