"""The lateral frequencies of a domain that the zone plate transmits, sorted and grouped for solving."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import threads as _threads  # noqa: F401 - a setting made by import
from mistral_txm.reconstruction.geometry import ZONE_PLATE_CUTOFF_PER_NM
from mistral_txm.reconstruction.lanes import LANES

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Frequencies:
    """The lateral frequencies inside the passband, sorted by |q|, and all that belongs to each."""

    index_y: npt.NDArray[np.intp]
    index_x: npt.NDArray[np.intp]
    qy: Float64
    qx: Float64
    radius: Float64
    bins: npt.NDArray[np.intp]
    bin_radius: Float64
    domain_radius: Float64

    @classmethod
    def of(cls, shape_yx: tuple[int, int], voxel_nm: float) -> Frequencies:
        """All frequencies of the half plane of a real transform that the zone plate transmits."""
        qy = 2 * np.pi * np.fft.fftfreq(shape_yx[0], voxel_nm)
        qx = 2 * np.pi * np.fft.rfftfreq(shape_yx[1], voxel_nm)
        radius = np.hypot(qy[:, None], qx[None, :])
        domain_radius = np.asarray(radius.ravel())
        inside = np.flatnonzero(domain_radius < 2 * np.pi * ZONE_PLATE_CUTOFF_PER_NM)
        inside = inside[np.argsort(domain_radius[inside], kind="stable")]
        iy, ix = np.divmod(inside, len(qx))
        r = radius[iy, ix]
        width = max(2 * np.pi / (min(shape_yx) * voxel_nm), r[-1] / 128) if r[-1] > 0 else 1.0
        bins = np.round(r / width).astype(np.intp)
        count = np.bincount(bins)
        bin_radius = np.asarray(np.bincount(bins, weights=r) / np.maximum(count, 1))
        return cls(
            iy, ix, np.asarray(qy[iy]), np.asarray(qx[ix]), r, bins, bin_radius, domain_radius
        )


@dataclass(frozen=True)
class Groups:
    """Frequencies of one bin, `LANES` to a group, nearby directions together.

    number_gl: which frequency, -1 where the last group of a bin is filled up, shape (groups, lanes). bin_g: their bin.
    """

    number_gl: Intp
    bin_g: Intp

    @classmethod
    def of(cls, frequencies: Frequencies) -> Groups:
        """Group all frequencies."""
        groups, group_bin = [], []
        starts = np.searchsorted(frequencies.bins, np.arange(frequencies.bins[-1] + 2))
        for b in range(len(starts) - 1):
            members = np.arange(starts[b], starts[b + 1])
            if not len(members):
                continue
            members = members[
                np.argsort(
                    np.arctan2(frequencies.qy[members], frequencies.qx[members]), kind="stable"
                )
            ]
            filled = np.full(-(-len(members) // LANES) * LANES, -1, dtype=np.intp)
            filled[: len(members)] = members
            groups.append(filled.reshape(-1, LANES))
            group_bin.append(np.full(len(groups[-1]), b, dtype=np.intp))
        return cls(np.concatenate(groups), np.concatenate(group_bin))

    def chosen(self, which_g: npt.NDArray[np.bool_]) -> Groups:
        """Return some of the groups."""
        return Groups(self.number_gl[which_g], self.bin_g[which_g])


@numba.njit(parallel=True, cache=True)
def gather(planes, place_gl, out):  # type: ignore[no-untyped-def]
    """``out[g, plane, lane] = planes[plane, place]``, 0 where the place is negative."""
    groups, lanes = place_gl.shape
    for g in numba.prange(groups):
        for v in range(planes.shape[0]):
            for s in range(lanes):
                j = place_gl[g, s]
                out[g, v, s] = planes[v, j] if j >= 0 else 0


@numba.njit(nogil=True, cache=True)
def scatter(values_gvl, plane_number, place_gl, plane):  # type: ignore[no-untyped-def]
    """The reverse of `gather`, of one plane."""
    groups, lanes = place_gl.shape
    for g in range(groups):
        for s in range(lanes):
            j = place_gl[g, s]
            if j >= 0:
                plane[j] = values_gvl[g, plane_number, s]
