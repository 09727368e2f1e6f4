"""What a uniform length of the magnetization says of shifts that go slowly with the tilt.

To first order a shift that grows with ``t = tan(theta)`` displaces m_z by ``a t``, and that looks like more
magnetization in the walls, ``m_x + a dm_z/dx``: a linear vector field makes up for it, and only its length shows that
it did. With the field m of the direct solve (module `direct`) at the shifts d, linear in the views, and so nearly
linear in d,

    ``J(d) = < (|m|^2 / <|m|^2>_z - 1)^2 >``,

averaged over the window that all views show, and over whole layers; each layer has a length of its own, because
materials differ and resolution does. Its Gauss-Newton step in what varies slowly, Legendre polynomials of t to `ORDER`
along both directions of each series, is joined to that of the views: ``F + SAMPLES J / J(now)``, as if J were the sum
over so many independent samples of the noise that it has now. Of simulated stripes, true shifts have a J of 0.02,
shifts that are wrong by half a pixel 0.03 to 0.06. A shift along the stripes changes neither the length nor the views.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction.coupling import Normals, Window
from mistral_txm.reconstruction.direct import solve_direct
from mistral_txm.reconstruction.extension import extend_views
from mistral_txm.reconstruction.film_field import FilmField
from mistral_txm.reconstruction.film_poses import FilmPoses

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

ORDER = 3
"""Polynomials of higher order the views tell well enough."""
SAMPLES = 1000.0
"""Between 1000 and 10000 the shifts of simulated stripes come out the same within 0.04 pixels."""
MOST_UNEVEN = 0.15
"""J from which on the length is not taken to be uniform, and says nothing."""
STEP_NM = 4.0
"""Of the differences that make the derivatives."""
WHOLE = 0.99
"""Part of a layer of voxels that is magnetic, from which on its length counts."""


@dataclass(frozen=True)
class UniformLength:
    """The slow shifts of one contrast, and how its field goes with them.

    basis_kvi: steps (y, x) in nm of the sheared frame, shape (unknowns, views, 2). change_kczyx: derivative of the
    field by each, per nm, in the window.
    """

    field: FilmField
    window: Window
    basis_kvi: Float64
    change_kczyx: Float32

    @classmethod
    def of(cls, field: FilmField, poses: FilmPoses) -> UniformLength:
        """Differentiate the field at these poses; later ones are near enough."""
        basis = _slow(field, poses)
        to_vu = poses.to_vu(field.series)
        window = Window.of(field.laid(poses))
        here = _magnetization(field, poses, window)
        change = [
            (_magnetization(field, poses.moved(STEP_NM * one, to_vu), window) - here) / STEP_NM
            for one in basis
        ]
        return cls(field, window, basis, np.stack(change).astype(np.float32))

    def add_to(self, normals: Normals, poses: FilmPoses, repeats: float) -> None:
        """Add its gradient and matrix to those of the views, of which so many coefficients say the same."""
        m = _magnetization(self.field, poses, self.window)
        weight = np.broadcast_to(self.window.weight_yx / self.window.weight_yx.sum(), m.shape[1:])
        weight = weight / len(m[0])
        square = np.sum(m**2, axis=0)
        mean = _per_layer(square, weight)
        off = square / mean - 1
        uneven = float(np.sum(weight * off**2))
        if not uneven < MOST_UNEVEN:
            return
        slopes = []
        for change in self.change_kczyx:
            of_square = 2 * np.sum(m * change, axis=0)
            slopes.append(of_square / mean - square / mean**2 * _per_layer(of_square, weight))
        slope = np.stack([(np.sqrt(weight) * one).ravel() for one in slopes])
        size = self.basis_kvi[0].size
        flat = self.basis_kvi.reshape(len(self.basis_kvi), size)
        into = np.linalg.solve(flat @ flat.T, flat)
        scale = 2 * repeats * SAMPLES / uneven
        normals.gradient[:size] += scale * into.T @ (slope @ (np.sqrt(weight) * off).ravel())
        normals.matrix[:size, :size] += scale * into.T @ (slope @ slope.T) @ into


def _per_layer(values_zyx: Float64, weight_zyx: Float64) -> Float64:
    total = np.sum(weight_zyx * values_zyx, axis=(1, 2), keepdims=True)
    return np.asarray(total / np.sum(weight_zyx, axis=(1, 2), keepdims=True))


def _slow(field: FilmField, poses: FilmPoses) -> Float64:
    """Legendre polynomials of tan(theta), 1 to `ORDER`, along y and x of each series."""
    found = []
    for number, one in enumerate(field.series):
        t = np.tan(np.deg2rad(np.asarray(one.theta_deg_t, dtype=np.float64)))
        values = np.polynomial.legendre.legvander(t / np.abs(t).max(), ORDER)[:, 1:]
        for axis in (0, 1):
            for column in values.T:
                step = np.zeros((len(poses.series_v), 2))
                step[poses.series_v == number, axis] = column
                found.append(step)
    return np.stack(found)


def _magnetization(field: FilmField, poses: FilmPoses, window: Window) -> Float64:
    """The field of the direct solve in whole layers, shape (3, layers, y, x of the window)."""
    views = field.laid(poses)
    extended = extend_views(views, field.support, field.grid.voxel_nm)
    m = solve_direct(views, extended, field.support, field.grid.voxel_nm).field
    assert m is not None
    whole = field.support.coverage_z > WHOLE
    return np.asarray(m[:, whole][:, :, window.rows, window.columns], dtype=np.float64)
