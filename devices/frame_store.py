"""A frame file that a detector's server is writing, and what the documents call it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mistral_txm.devices.growing_file import DAMAGE, open_growing

DATASET = "/entry/data/data"
"""Where NDFileHDF5 puts the frames, shape (frames, ny, nx)."""

TEMPORARY_SUFFIX = ".tmp"
"""What a file's name ends with until the file is complete."""

BRIGHT_FRACTION = 0.999
"""How much of a frame is not brighter than what is called its bright counts."""


class FrameRefused(RuntimeError):
    """A frame is not what was asked for; one line says what was found and expected."""


@dataclass(frozen=True)
class FrameNumbers:
    """What is said of a frame in numbers: a thousandth of its pixels is brighter than `bright_counts`.

    >>> numbers = FrameNumbers.of(np.arange(10_000, dtype=np.uint16), saturation_counts=9000)
    >>> numbers.mean_counts, numbers.bright_counts, numbers.saturated_fraction, numbers.is_uniform
    (4999.5, 9989, 0.1, False)
    """

    mean_counts: float
    bright_counts: int
    saturated_fraction: float
    is_uniform: bool

    @classmethod
    def of(cls, frame_vu: NDArray[np.uint16], saturation_counts: int) -> "FrameNumbers":
        """Take them from a frame."""
        not_brighter = np.cumsum(np.bincount(frame_vu.ravel()))  # faster than to sort
        return cls(
            mean_counts=float(frame_vu.mean()),
            bright_counts=int(np.searchsorted(not_brighter, BRIGHT_FRACTION * frame_vu.size)),
            saturated_fraction=int(np.count_nonzero(frame_vu >= saturation_counts)) / frame_vu.size,
            is_uniform=bool(frame_vu.min() == frame_vu.max()),
        )


@dataclass(frozen=True)
class OpenFile:
    """A file that the server is writing, and what the documents call it."""

    name: str
    path: Path
    resource_uid: str
    shape_vu: tuple[int, int]

    @property
    def temporary_path(self) -> Path:
        """Where the file is until it is closed."""
        return self.path.with_name(self.path.name + TEMPORARY_SUFFIX)

    def resource(self) -> dict[str, Any]:
        """Make the document that names the file, once."""
        return {
            "uid": self.resource_uid,
            "data_key": "ccd",
            "mimetype": "application/x-hdf5",
            "uri": "file://localhost" + quote(str(self.path)),
            "parameters": {"dataset": DATASET, "chunk_shape": [1, *self.shape_vu]},
        }

    def datum(self, frame_number: int) -> dict[str, Any]:
        """Make the document that names one frame; the RunEngine fills in descriptor and numbers."""
        return {
            "uid": f"{self.resource_uid}/{frame_number}",
            "stream_resource": self.resource_uid,
            "descriptor": "",
            "indices": {"start": frame_number, "stop": frame_number + 1},
            "seq_nums": {"start": 0, "stop": 0},
        }

    def read(self, frame_number: int) -> NDArray[np.uint16]:
        """Read one frame ``[v, u]`` from the file that the server is still writing.

        Raises
        ------
        FrameRefused
            If it cannot be read, or its shape or type is not the one expected.
        """
        try:
            with open_growing(self.temporary_path) as file:
                dataset = file[DATASET]
                if dataset.shape[1:] != self.shape_vu or dataset.dtype != np.uint16:
                    raise FrameRefused(
                        f"{self.temporary_path}: frames are {dataset.dtype} {dataset.shape[1:]}, "
                        f"expected uint16 {self.shape_vu}; check region, binning and data type"
                    )
                frame_vu: NDArray[np.uint16] = dataset[frame_number]
        except FrameRefused:
            raise
        except DAMAGE as refusal:
            raise FrameRefused(
                f"{self.temporary_path}: frame {frame_number} cannot be read back ({refusal}); "
                "check that the detector's server writes where this process reads"
            ) from refusal
        return frame_vu
