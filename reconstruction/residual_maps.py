"""What a volume leaves of its views, and where in it: the maps that show what a model misses.

For each view the residual ``(p - A m) / sigma``, where a volume that explains it leaves noise of size one and no
picture; and per voxel the mean of its square over all rays through the voxel, which stands out where many views
disagree with the volume: a layer that is not in the model, gold that was not masked, a misaligned view, a texture that
the prior smoothed away. The model's rays are those of the sheared frame (module `geometry`); only those that pass the
film inside the field of view are judged. Resampling the views smooths their noise: by itself it leaves 0.8 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.files import replaced_when_complete
from mistral_txm.reconstruction.film import on_domain, sheared_problem
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.layers import covered_layers, support_of
from mistral_txm.reconstruction.reconstruct import Reconstruction
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.views import resampled_film

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FEWEST_VIEWS = 0.25
"""Part of the views that must see a voxel for its misfit to say something."""


@dataclass(frozen=True)
class ResidualMaps:
    """Residuals in units of the noise.

    residual_vyx: by view, on the plane z = 0 of the volume's field of view, NaN where no ray is judged.
    phi_deg_v, theta_deg_v: of the views. misfit_zyx: mean square over the rays through each voxel, NaN where
    fewer than `FEWEST_VIEWS` of the views have one.
    """

    residual_vyx: Float32
    phi_deg_v: Float64
    theta_deg_v: Float64
    misfit_zyx: Float32


def residual_maps(
    series: Sequence[TiltSeries],
    result: Reconstruction,
    *,
    layers_nm: Sequence[tuple[float, float]] = (),
) -> ResidualMaps:
    """Compare a film's volume with the views that it was made of, or with others.

    Args:
        series: the views.
        result: the volume.
        layers_nm: as `reconstruct` was given.

    Raises:
        InputError: for series that cannot be used, or fields of view so narrow that no ray stays inside.
    """
    grid = result.grid
    views, domain = resampled_film(series, grid)
    support, kept = support_of(grid, covered_layers(grid, result.prior, layers_nm))
    problem = sheared_problem(views, support, grid.voxel_nm)
    scale = np.float32(1.0 if result.delta_per_nm is None else result.delta_per_nm)
    # A layer whose centre lies outside is zero in the volume, but not in the model that made it.
    nearest = _nearest_filled(result.m_czyx[:, kept])
    residual = problem.residual(on_domain(nearest * scale, domain))
    theta = np.array([v.theta_deg for v in views])
    phi = np.array([v.phi_deg for v in views])
    residual *= np.float32(1) / np.sqrt(np.cos(np.deg2rad(theta)))[:, None, None].astype(np.float32)
    seen = domain.crop(np.stack([v.seen_yx for v in views]).astype(np.float32), grid) > 0
    seen &= _inside(support.z_nm, theta, phi, grid.y_nm, grid.x_nm, grid.voxel_nm)
    if not seen.any():
        raise InputError(
            "residual maps: no ray passes the film inside the field of view; give a wider one"
        )
    image = np.where(seen, domain.crop(residual, grid), 0).astype(np.float32)
    full = np.zeros_like(residual)
    (oy, ox), (_, ny, nx) = domain.offset_yx, grid.shape_zyx
    window = np.s_[:, oy : oy + ny, ox : ox + nx]
    full[window] = image**2
    projector = problem.projector
    squares = domain.crop(projector.adjoint(full)[2], grid)
    full[window] = seen
    count = domain.crop(projector.adjoint(full)[2], grid)
    misfit = np.full(grid.shape_zyx, np.nan, np.float32)
    few = count < FEWEST_VIEWS * len(views) * grid.voxel_nm
    misfit[kept] = np.where(few, np.nan, squares / np.where(few, 1, count))
    return ResidualMaps(np.where(seen, image, np.nan).astype(np.float32), phi, theta, misfit)


def _nearest_filled(field_czyx: Float32) -> Float32:
    """Give layers that are zero throughout the values of the nearest one that is not."""
    filled = np.flatnonzero(field_czyx.any(axis=(0, 2, 3)))
    if not filled.size:
        return field_czyx
    layers = np.arange(field_czyx.shape[1])
    return field_czyx[:, filled[np.abs(layers[:, None] - filled).argmin(axis=1)]]


def _inside(
    z_nm: Float64,
    theta_deg_v: Float64,
    phi_deg_v: Float64,
    y_nm: Float64,
    x_nm: Float64,
    voxel_nm: float,
) -> npt.NDArray[np.bool_]:
    """Whether the ray through (x, y) of the plane z = 0 stays over the field of view in all layers."""
    t = np.tan(np.deg2rad(theta_deg_v))
    reach = np.abs(z_nm).max() + voxel_nm / 2
    excursion_x, excursion_y = (
        reach * np.abs(t * part(np.deg2rad(phi_deg_v))) for part in (np.cos, np.sin)
    )
    inside_y = np.abs(y_nm) + excursion_y[:, None] <= np.abs(y_nm).max()
    inside_x = np.abs(x_nm) + excursion_x[:, None] <= np.abs(x_nm).max()
    return np.asarray(inside_y[:, :, None] & inside_x[:, None, :])


def write_residual_maps(path: Path, maps: ResidualMaps) -> None:
    """Write the maps as HDF5: `residual` [view, y, x], `phi_deg`, `theta_deg`, and `misfit` [z, y, x]."""
    with replaced_when_complete(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["title"] = (
            "residuals of the views in units of the noise, and their mean square by voxel"
        )
        for name, values, axes in (
            ("residual", maps.residual_vyx, "view y x"),
            ("phi_deg", maps.phi_deg_v, "view"),
            ("theta_deg", maps.theta_deg_v, "view"),
            ("misfit", maps.misfit_zyx, "z y x"),
        ):
            file.create_dataset(name, data=values).attrs["axes"] = axes
