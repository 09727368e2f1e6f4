"""The volume that the live reconstruction published last, as those who watch need it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.volume_file import read_volume
from mistral_txm.services.fields import Field, field_of


@dataclass(frozen=True, eq=False)
class LiveVolume:
    """A field to draw, and what it was made with."""

    field: Field
    method: str
    prior: str
    layers_nm: tuple[tuple[float, float], ...]
    """Heights of the magnetic layers, lower and upper edge; empty where they are not known."""
    data_fraction: float | None
    """How much of a voxel comes from the data, on average over the magnetic layers, 0 to 1."""
    azimuths: int = 0
    """How many it was made from; 0 where that is not told."""

    @property
    def in_layers_z(self) -> NDArray[np.bool_]:
        """Which slices lie in a magnetic layer; all where no layers are known."""
        z_nm = self.field.centres_nm("z")
        inside = np.zeros(z_nm.shape, dtype=np.bool_)
        for low_nm, high_nm in self.layers_nm:
            inside |= (z_nm >= low_nm) & (z_nm <= high_nm)
        return inside if inside.any() else np.ones_like(inside)


def read_live_volume(path: Path) -> LiveVolume:
    """Read a published volume.

    Raises:
        ValueError: the file is missing, damaged or no volume.
    """
    volume = read_volume(path)
    azimuths = len(volume.residuals)
    read = LiveVolume(
        field_of(volume), volume.method, volume.prior, volume.layers_nm, None, azimuths
    )
    if volume.data_fraction is None:
        return read
    return replace(read, data_fraction=float(np.mean(volume.data_fraction[read.in_layers_z])))
