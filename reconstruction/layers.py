"""The magnetic layers of a film as the part of each voxel layer that they cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.geometry import Grid, InputError

Float64 = npt.NDArray[np.float64]

CENTRE_INSIDE = 0.5 - 1e-6
"""Covered part from which on a voxel's centre counts as inside a layer."""


@dataclass(frozen=True)
class Support:
    """Layers that may hold magnetization: centres and covered part of each, shape (layers,)."""

    z_nm: Float64
    coverage_z: Float64

    @property
    def symmetric(self) -> bool:
        """Whether the support is its own mirror image, which makes the matrices real."""
        z = self.z_nm - self.centre_nm
        return bool(
            np.allclose(z, -z[::-1]) and np.allclose(self.coverage_z, self.coverage_z[::-1])
        )

    @property
    def centre_nm(self) -> float:
        """Half way between the lowest and the highest layer."""
        return float(self.z_nm[0] + self.z_nm[-1]) / 2


def layer_coverage(grid: Grid, layers_nm: Sequence[tuple[float, float]]) -> Float64:
    """Part of each voxel layer inside the magnetic layers, shape (nz,), 0 to 1.

    Raises:
        InputError: for layers that are empty, upside down, or outside the volume.

    >>> layer_coverage(Grid((4, 1, 1), 10.0), [(-20.0, -5.0)])
    array([1. , 0.5, 0. , 0. ])
    """
    if not len(layers_nm):
        raise InputError(
            "layers: none given, but the prior needs to know where the magnetic layers are; give e.g. -120:-40"
        )
    low, high = grid.z_nm - grid.voxel_nm / 2, grid.z_nm + grid.voxel_nm / 2
    coverage = np.zeros(len(low))
    for z0, z1 in layers_nm:
        if not (np.isfinite(z0) and np.isfinite(z1) and z0 < z1):
            raise InputError(
                f"layers: {z0}:{z1} is not a layer; give lower and upper border in nm from the film's middle"
            )
        overlap = np.clip(np.minimum(high, z1) - np.maximum(low, z0), 0, None)
        if not overlap.any():
            raise InputError(
                f"layers: {z0:g}:{z1:g} nm lies outside the volume, {low[0]:g} to {high[-1]:g} nm; give more depth"
            )
        coverage += overlap / grid.voxel_nm
    if coverage.max() > 1 + 1e-9:
        raise InputError(f"layers: {list(layers_nm)} overlap each other; give each one once")
    return np.minimum(coverage, 1)


def covered_layers(grid: Grid, prior: str, layers_nm: Sequence[tuple[float, float]]) -> Float64:
    """Part of each voxel layer that may be magnetic, shape (nz,): all of it where the prior says nothing."""
    return np.ones(grid.shape_zyx[0]) if prior == "none" else layer_coverage(grid, layers_nm)


def support_of(grid: Grid, coverage_z: Float64) -> tuple[Support, npt.NDArray[np.intp]]:
    """The layers that may be magnetic, and which of the grid's they are."""
    kept = np.flatnonzero(coverage_z > 1e-6)
    return Support(grid.z_nm[kept], coverage_z[kept]), kept
