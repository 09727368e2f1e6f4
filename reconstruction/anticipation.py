"""A volume that is ready for the next view: what it will change is worked out while that view is being exposed.

The direct solution is linear in the views, and everything but the data of a view is known before: its direction, its
noise, where unseen rays continue. `reconstruct_ahead` returns the volume of the views so far, and with it how it
follows one more (`direct.Response`). When that view is there, `Anticipation.with_view` needs one Fourier transform
per layer, a tenth of the time of a new solution. The shifts and warps of the other views stay as they were, and so do
the prior's two numbers, data fraction and standard deviation: the whole solution has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.direct import Response, ViewToCome
from mistral_txm.reconstruction.extension import CoarseField
from mistral_txm.reconstruction.film import How, on_grid, solve_film
from mistral_txm.reconstruction.geometry import (
    MAX_TILT_DEG,
    Grid,
    InputError,
    Mount,
    film_direction,
)
from mistral_txm.reconstruction.layers import covered_layers
from mistral_txm.reconstruction.reconstruct import (
    Reconstruction,
    check_options,
    reconstruction_of,
)
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.views import Domain, checked_film, film_views, padded_domain

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Anticipation:
    """How a volume follows the view that comes next."""

    volume: Reconstruction
    mount: Mount
    theta_deg: float
    domain: Domain
    coverage_z: Float64
    continuation: CoarseField
    response: Response

    def with_view(self, series: TiltSeries, place: int) -> Reconstruction:
        """Return the volume with one more view.

        Args:
            series: of that view alone, at the azimuth and, within a small part of a degree, the tilt that were
                anticipated.
            place: its number among all views, in the order of their series and tilts.

        Raises:
            InputError: for a view that cannot be used, or more than one.
        """
        (one,), _ = checked_film([series])
        if len(one.theta_deg_t) != 1:
            raise InputError(f"{one.name}: {len(one.theta_deg_t)} views, expected the one to come")
        volume, grid = self.volume, self.volume.grid
        (view,) = film_views(one, grid, self.domain)
        (extended_yx,) = self.continuation.continued([view])
        change, left_yx = self.response.follow(extended_yx)
        m = volume.m_czyx + on_grid(change, grid, self.domain, self.coverage_z)
        rms = np.sqrt(np.mean(left_yx[view.seen_yx] ** 2, dtype=np.float64))
        return replace(
            volume,
            mx=m[0],
            my=m[1],
            mz=m[2],
            residual_rms_per_view=np.insert(volume.residual_rms_per_view, place, rms),
            noise_per_view=np.insert(volume.noise_per_view, place, view.std_signal),
        )


def reconstruct_ahead(
    series: Sequence[TiltSeries],
    grid: Grid,
    phi_deg: float,
    theta_deg: float,
    *,
    prior: str = "none",
    layers_nm: Sequence[tuple[float, float]] = (),
) -> tuple[Reconstruction, Anticipation | None]:
    """Reconstruct by the method "direct", and be ready for one more view.

    Args:
        series, grid, layers_nm: as for `reconstruct`.
        phi_deg, theta_deg: azimuth and tilt of the view that comes next, deg.
        prior: "none" or "layers".

    Returns:
        The volume, as `reconstruct` makes it but for a margin that a steeper next view may need; and what is ready:
        None where the layers are not symmetric about their middle.

    Raises:
        InputError: as `reconstruct`, and for a view that sees along the film.
    """
    check_options("direct", prior, layers_nm, None)
    if prior == "norm":
        raise InputError("prior 'norm': it is not linear in the views; choose 'none' or 'layers'")
    coverage_z = covered_layers(grid, prior, layers_nm)
    mount = Mount(phi_deg)
    tilt_deg, azimuth_deg, _ = film_direction(mount, theta_deg)
    if not abs(tilt_deg) <= MAX_TILT_DEG:
        raise InputError(
            f"next view: {theta_deg:g} deg sees the film at {abs(tilt_deg):g} deg to its normal, expected at most "
            f"{MAX_TILT_DEG:g}"
        )
    found, steepest_deg = checked_film(series)
    domain = padded_domain(grid, max(steepest_deg, abs(tilt_deg)))
    views = [view for one in found for view in film_views(one, grid, domain)]
    std_signal = float(np.median([view.std_signal for view in views]))
    how = How("direct", prior, ahead=ViewToCome(azimuth_deg, tilt_deg, std_signal))
    solved = solve_film(views, grid, domain, coverage_z, how)
    volume = reconstruction_of(solved, grid, how)
    if solved.response is None or solved.continuation is None:
        return volume, None
    return volume, Anticipation(
        volume, mount, theta_deg, domain, coverage_z, solved.continuation, solved.response
    )
