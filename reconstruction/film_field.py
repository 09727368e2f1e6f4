"""One contrast of a film with binned images, as the alignment by structure works on it (module `reprojection`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.binning import centre_moved_pixels
from mistral_txm.reconstruction.coupling import Coupling
from mistral_txm.reconstruction.film_poses import FilmPoses
from mistral_txm.reconstruction.geometry import Grid
from mistral_txm.reconstruction.layers import Support, layer_coverage
from mistral_txm.reconstruction.neighbours import Contrast, prepared
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.views import (
    Domain,
    View,
    checked_film,
    film_views,
    padded_domain,
)

Float64 = npt.NDArray[np.float64]

VOXEL_NM = 21.0
"""Pixels are binned to about this: the finest structure that is used has four of them (`coupling.SHORTEST_NM`)."""


@dataclass(frozen=True)
class FilmField:
    """One contrast with binned images, on its grid."""

    series: tuple[TiltSeries, ...]
    grid: Grid
    domain: Domain
    support: Support
    scalar: bool
    centre_moved_nm: Float64
    _newest: list[tuple[FilmPoses, list[View]]] = field(default_factory=list)
    """All views as they were laid last: coupling, normals and the field's length ask for the same ones."""

    @classmethod
    def of(cls, contrast: Contrast, pixel_nm: float, binning: int) -> FilmField:
        """Bin the images and choose layers of voxels for where the contrast lies."""
        found, steepest_deg = checked_film(contrast.series)
        shape = found[0].signal_tvu.shape[1:]
        voxel_nm = binning * pixel_nm
        series = tuple(prepared(one, binning) for one in contrast.series)
        n_v, n_u = np.asarray(series[0].dichroic_tvu).shape[1:]
        reach = max(abs(border) for layer in contrast.layers_nm for border in layer)
        grid = Grid((2 * int(np.ceil(reach / voxel_nm)), n_v, n_u), voxel_nm)
        coverage = layer_coverage(grid, contrast.layers_nm)
        support = Support(grid.z_nm[coverage > 0], coverage[coverage > 0])
        moved = centre_moved_pixels(shape, binning) * pixel_nm
        return cls(series, grid, padded_domain(grid, steepest_deg), support, contrast.scalar, moved)

    def laid(self, poses: FilmPoses, which: Sequence[int] | None = None) -> list[View]:
        """Views of all or some of the series in the sheared frame, by these poses."""
        if which is not None:
            return self._views([poses.laid(self.series[k], k, self.centre_moved_nm) for k in which])
        if not self._newest or self._newest[0][0] is not poses:
            views = self.laid(poses, range(len(self.series)))
            self._newest[:] = [(poses, views)]
        return self._newest[0][1]

    def laid_some(self, poses: FilmPoses, number: int, chosen: Sequence[int]) -> list[View]:
        """Some views of one series, by these poses."""
        posed = poses.laid(self.series[number], number, self.centre_moved_nm)
        return self._views([posed.of_views(np.asarray(chosen, dtype=np.intp))])

    def _views(self, posed: Sequence[TiltSeries]) -> list[View]:
        views = [
            view
            for one in checked_film(posed)[0]
            for view in film_views(one, self.grid, self.domain)
        ]
        if not self.scalar:
            return views
        # A scalar's path through a layer is dz / cos(theta); a vector's weights hold that factor already.
        cosines = np.cos(np.deg2rad([view.theta_deg for view in views]))
        return [
            replace(view, signal_yx=np.float32(c) * view.signal_yx, std_signal=c * view.std_signal)
            for view, c in zip(views, cosines, strict=True)
        ]

    def coupling(self, poses: FilmPoses, which: Sequence[int] | None = None) -> Coupling:
        """The views of all or some of the series tied together, as they lie now."""
        views = self.laid(poses, which)
        return Coupling.of(views, self.grid, self.domain, self.support, scalar=self.scalar)
