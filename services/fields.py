"""What figures are drawn of: a vector field with its voxel, and points to mark in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.volume_file import Volume
from mistral_txm.services.truth import PointCharge


@dataclass(frozen=True)
class Field:
    """A vector field to draw: ``[component, z, y, x]``, its voxel in nm, and what one unit of it
    is.

    ``unit`` is empty for unit magnetization, and "1/nm" for a field in units of the dichroic
    signal.
    """

    m_czyx: NDArray[np.float32]
    voxel_nm: float
    unit: str = ""

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Voxels along z, y and x."""
        _, n_z, n_y, n_x = self.m_czyx.shape
        return n_z, n_y, n_x

    @property
    def limit(self) -> float:
        """Symmetric colour limit: 1 for unit magnetization, else what 99.5 % of the voxels stay
        below."""
        if not self.unit:
            return 1.0
        return float(np.nanpercentile(np.abs(self.m_czyx), 99.5)) or 1.0

    @property
    def label(self) -> str:
        """What the colour bar of a component says."""
        return (
            f"component of $m\\,\\delta$ ({self.unit})"
            if self.unit
            else "component of $m$ (unit vector)"
        )

    @property
    def strongest_height_nm(self) -> float:
        """Height of the slice with the largest sum of squares."""
        power_z = np.nansum(np.square(self.m_czyx, dtype=np.float64), axis=(0, 2, 3))
        return float(self.centres_nm("z")[int(np.argmax(power_z))])

    def index_of(self, position_nm: float, axis: Literal["z", "y", "x"]) -> int:
        """Index of the voxel that holds a position, the nearest one if it lies outside."""
        n = self.m_czyx.shape[1 + "zyx".index(axis)]
        return int(np.clip(round(position_nm / self.voxel_nm + (n - 1) / 2), 0, n - 1))

    def centres_nm(self, axis: Literal["z", "y", "x"]) -> NDArray[np.float64]:
        """Positions of the voxel centres along an axis."""
        n = self.m_czyx.shape[1 + "zyx".index(axis)]
        centres: NDArray[np.float64] = (np.arange(n) - (n - 1) / 2) * self.voxel_nm
        return centres


def field_of(volume: Volume) -> Field:
    """The field of a volume, to draw."""
    return Field(volume.m_czyx, volume.voxel_nm, "" if volume.unit == "1" else volume.unit)


@dataclass(frozen=True)
class Points:
    """Singularities to mark: those found in the volume and, where a truth is at hand, the true
    ones."""

    found: Sequence[PointCharge] = ()
    true: Sequence[PointCharge] = ()
