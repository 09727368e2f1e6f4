"""The direct reconstruction of a measurement that is still running."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.film import How, solve_film
from mistral_txm.reconstruction.geometry import MAX_TILT_DEG, Grid, InputError
from mistral_txm.reconstruction.layers import covered_layers
from mistral_txm.reconstruction.reconstruct import (
    Reconstruction,
    check_options,
    reconstruction_of,
)
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.views import View, checked_film, film_views, padded_domain

Float32 = npt.NDArray[np.float32]


class DirectModel:
    """The direct reconstruction of a measurement that is still running: add views as they come, solve at any time.

    Views are resampled once, when they come, and the continuation beyond the field of view starts from the one
    before. What `solve` returns is the same as `reconstruct(..., method="direct")` of all views so far, but for
    that start.

    Args:
        grid: the volume; a voxel is as wide as a pixel.
        max_tilt_deg: steepest tilt that will come; it sets how far beyond the field of view rays reach.
        prior, layers_nm, delta_per_nm: as for `reconstruct`.

    Raises:
        InputError: as `reconstruct`.

    >>> model = DirectModel(Grid((4, 16, 16), 10.5), max_tilt_deg=55.0)
    >>> for theta_deg in (-40.0, 0.0, 40.0):
    ...     model.add_view(0.0, theta_deg, np.full((16, 16), 0.1), 0.001)
    >>> model.views
    3
    >>> model.solve().mz.shape
    (4, 16, 16)
    """

    def __init__(
        self,
        grid: Grid,
        *,
        max_tilt_deg: float,
        prior: str = "none",
        layers_nm: Sequence[tuple[float, float]] = (),
        delta_per_nm: float | None = None,
    ) -> None:
        check_options("direct", prior, layers_nm, delta_per_nm)
        if not 0 <= max_tilt_deg <= MAX_TILT_DEG:
            raise InputError(f"steepest tilt: {max_tilt_deg} deg, expected 0 to {MAX_TILT_DEG:g}")
        self._grid = grid
        self._how = How("direct", prior, delta_per_nm)
        self._max_tilt_deg = max_tilt_deg
        self._coverage_z = covered_layers(grid, prior, layers_nm)
        self._domain = padded_domain(grid, max_tilt_deg)
        self._views: dict[tuple[float, float], View] = {}
        self._coarse: Float32 | None = None

    @property
    def views(self) -> int:
        """How many views there are."""
        return len(self._views)

    def add_view(
        self,
        phi_deg: float,
        theta_deg: float,
        dichroic_vu: npt.ArrayLike,
        std: npt.ArrayLike | None = None,
        shift_vu_nm: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add a view, or put a better one in place of an earlier view of the same angles.

        Args:
            phi_deg, theta_deg: azimuth and tilt, deg.
            dichroic_vu: dichroic signal, NaN where masked.
            std: its standard deviation per pixel or one number; None: estimated.
            shift_vu_nm: where the sample's origin falls, from the image's centre.

        Raises:
            InputError: for a view that cannot be used; the views before it stay.
        """
        signal = np.asarray(dichroic_vu)
        one_std = (
            None
            if std is None
            else np.broadcast_to(np.asarray(std, dtype=np.float64), signal.shape)[None]
        )
        series = TiltSeries(phi_deg, [theta_deg], signal[None], one_std, [shift_vu_nm])
        if abs(theta_deg) > self._max_tilt_deg + 1e-9:
            raise InputError(
                f"view at theta = {theta_deg:g} deg: steeper than the {self._max_tilt_deg:g} deg of this model"
            )
        (checked,), _ = checked_film([series])
        (view,) = film_views(checked, self._grid, self._domain)
        self._views[view.phi_deg, view.theta_deg] = view

    def solve(self) -> Reconstruction:
        """Reconstruct from all views so far, ordered by azimuth and tilt.

        Raises:
            InputError: if there are none.
        """
        if not self._views:
            raise InputError("live model: no views yet; add one first")
        views = [self._views[key] for key in sorted(self._views)]
        solved, self._coarse = solve_film(
            views, self._grid, self._domain, self._coverage_z, self._how, coarse=self._coarse
        )
        return reconstruction_of(solved, self._grid, self._how)
