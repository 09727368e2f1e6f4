"""How the joint solve ties all views together: the shift that every view asks for, given all the others.

In the sheared frame (module `geometry`) a view at the lateral frequency q is ``p_i(q) = a_i(q) m(q) + noise``. With m a
Gaussian of the smooth prior that the direct solve has (module `direct`) on the layers that may hold it, all views
together are a Gaussian of the covariance

    ``C(q) = G(q) + N(q)``, ``G_ij = (w_i . w_j) sum over z, z' of c_z c_z' dz^2 k(z - z') exp(i (s_i z - s_j z'))``,

and ``N C^-1 p`` is what the joint solve leaves of each view: measured less predicted by all. Shifts d of the views do
not change C, so the most likely ones minimize ``F(d) = sum over q of p^H C^-1 p``; no volume is made, and the matrix
of second derivatives holds how a change of one view's shift can be made up by the field and the shifts of the others,
which is what makes steps with one view at a time creep:

    ``grad_i = 2 Re sum of b_i^* (C^-1 p)_i``, ``H_ij = 2 Re sum of b_i^* (C^-1)_ij b_j - D_i delta_ij``,
    ``b_i = dp_i / dd_i``, ``D_i = 2 Re sum of q q^T p_i^* (C^-1 p)_i``.

D is what noise alone puts into the first term: shifting noise changes it, and says nothing.

Views end, the film does not: all are faded by one window of the sheared frame, inside what all of them show, and b is
the faded derivative (not the derivative of what was faded, which would pull the window along). A layer at z moves
under the window by ``z tan(theta)``; that error, voxels and focus are the part `MODEL_ERROR` of the signal that is
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from mistral_txm.reconstruction.geometry import Grid, InputError
from mistral_txm.reconstruction.layers import Support
from mistral_txm.reconstruction.views import Domain, View

Bool = npt.NDArray[np.bool_]
Complex64 = npt.NDArray[np.complex64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MODEL_ERROR = 0.07
"""Error of the model relative to the root of the mean power at the same q."""
PRIOR_WIDTH = 10.0
"""By how much the prior's standard deviation exceeds what the views' power says. Two azimuths of a vector leave
shifts that go slowly with the tilt to be made up by the field, and a narrow prior drags them to the smallest field."""
SHORTEST_NM = 90.0
"""Wavelength of the finest structure that is used: finer one is lost in steep views, whose focus is tilted."""
MOST_FREQUENCIES = 1000
"""Frequencies that are used, those that say most of shifts: as many matrices of all views by all views."""
EDGE = 0.6
"""Part of the half width of what all views show over which they fade."""
FEWEST_VOXELS = 32
"""Width of what all views show from which on there is something to compare."""
KAPPA_PER_NM = 0.01
"""Inverse correlation length of the prior along z."""


@dataclass(frozen=True)
class Window:
    """The part of the lateral domain that all views show, fading to its border."""

    rows: slice
    columns: slice
    weight_yx: Float64
    padded_yx: tuple[int, int]

    @classmethod
    def of(cls, views: Sequence[View]) -> Window:
        """Find it; single masked pixels do no harm.

        Raises:
            InputError: if the views have too little in common.
        """
        common = np.mean([view.seen_yx for view in views], axis=0) > 0.97
        common = scipy.ndimage.binary_closing(np.pad(common, 8), iterations=6)
        depth = scipy.ndimage.distance_transform_edt(common)[8:-8, 8:-8]
        half = float(depth.max())
        if 2 * half < FEWEST_VOXELS:
            raise InputError(
                f"the views have {2 * half:.0f} pixels across in common, at least {FEWEST_VOXELS} are needed to "
                "compare them"
            )
        weight = np.sin(np.pi / 2 * np.clip((depth - 1) / (EDGE * half), 0, 1)) ** 2
        y, x = (np.flatnonzero(weight.any(axis=axis)) for axis in (1, 0))
        rows, columns = slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)
        cut = weight[rows, columns]
        padded = tuple(int(scipy.fft.next_fast_len(n, real=True)) for n in cut.shape)
        return cls(rows, columns, cut, (padded[0], padded[1]))

    @property
    def repeats(self) -> float:
        """How many coefficients of a transform say the same: neighbouring ones share the fading's width."""
        w2 = self.weight_yx**2
        return float(np.prod(self.padded_yx) * np.sum(w2**2) / np.sum(w2) ** 2)

    def transformed(self, image_yx: Float32) -> Complex64:
        """Fourier transform of the faded image."""
        faded = image_yx[self.rows, self.columns] * self.weight_yx.astype(np.float32)
        return np.asarray(scipy.fft.rfft2(faded, self.padded_yx, norm="ortho"))


@dataclass(frozen=True)
class Normals:
    """Gradient of F over the unknowns, both terms of its matrix, F itself and how many coefficients it sums."""

    gradient: Float64
    matrix: Float64
    noise: Float64
    misfit: float
    coefficients: int

    def __add__(self, other: Normals) -> Normals:
        """Add what another contrast says."""
        return Normals(
            self.gradient + other.gradient,
            self.matrix + other.matrix,
            self.noise + other.noise,
            self.misfit + other.misfit,
            self.coefficients + other.coefficients,
        )


@dataclass(frozen=True)
class Pull:
    """What F says of moves (y, x) of one view alone, all others staying: gradient, both terms of the matrix, F."""

    gradient: Float64
    matrix: Float64
    noise: Float64
    misfit: float

    def __add__(self, other: Pull) -> Pull:
        """Add what another contrast says."""
        return Pull(
            self.gradient + other.gradient,
            self.matrix + other.matrix,
            self.noise + other.noise,
            self.misfit + other.misfit,
        )


@dataclass(frozen=True)
class Coupling:
    """C^-1 of one contrast at the frequencies that count.

    origin_yx: the sample's origin in the domain, voxels. inverse_qij: shape (frequencies, views, views). shear_vq:
    ``s`` of each view, 1/nm. y, x: where these frequencies are in a transform.
    """

    origin_yx: Float64
    voxel_nm: float
    window: Window
    inverse_qij: Complex64
    shear_vq: Float64
    q_y: Float64
    q_x: Float64
    y: npt.NDArray[np.intp]
    x: npt.NDArray[np.intp]

    @classmethod
    def of(
        cls, views: Sequence[View], grid: Grid, domain: Domain, support: Support, *, scalar: bool
    ) -> Coupling:
        """Find the frequencies and invert their matrices."""
        window = Window.of(views)
        p = np.stack([_without_mean(view.signal_yx, window) for view in views])
        n_y, n_x = window.padded_yx
        q_y = 2 * np.pi * np.fft.fftfreq(n_y, grid.voxel_nm)[:, None]
        q_x = 2 * np.pi * np.fft.rfftfreq(n_x, grid.voxel_nm)[None, :]
        radius = np.hypot(q_y, q_x)
        half_plane = (q_x > 0) | (q_y > 0)
        y, x = np.nonzero((radius < 2 * np.pi / SHORTEST_NM) & half_plane)
        theta = np.deg2rad([view.theta_deg for view in views])
        kept = float(np.sum(window.weight_yx**2)) / (n_y * n_x)
        noise = kept * np.array([view.std_signal for view in views]) ** 2 / np.cos(theta)
        power = np.mean(np.abs(p[:, y, x]) ** 2, axis=0)
        ring = np.round(radius[y, x] / (4 * np.pi / (min(n_y, n_x) * grid.voxel_nm))).astype(int)
        ring_power = (np.bincount(ring, power) / np.maximum(np.bincount(ring), 1))[ring]
        # Stripes hold most of their ring's power in a few frequencies, which are not better known for that.
        power_there = np.maximum(power, ring_power)
        model_noise = MODEL_ERROR**2 * power_there
        signal = PRIOR_WIDTH**2 * np.maximum(power_there - noise.mean(), 1e-3 * noise.mean())
        tells = (
            np.maximum(power - noise.mean(), 0) * radius[y, x] ** 2 / (noise.mean() + model_noise)
        )
        chosen = np.argsort(-tells, kind="stable")[:MOST_FREQUENCIES]
        y, x = y[chosen], x[chosen]
        inverse = np.empty((len(y), len(views), len(views)), np.complex64)
        direction = _directions(views, scalar=scalar)
        shear = _shear(views, q_y[y, 0], q_x[0, x])
        for number, one in enumerate(chosen):
            q = float(radius[y[number], x[number]])
            seen = _expected(shear[:, number], q, direction, support, grid.voxel_nm)
            scale = signal[one] / float(np.mean(np.diag(seen).real))
            covariance = scale * seen + np.diag(noise + model_noise[one])
            inverse[number] = np.linalg.inv(covariance)
        origin = np.array(domain.offset_yx) + (np.array(grid.shape_zyx[1:]) - 1) / 2
        return cls(origin, grid.voxel_nm, window, inverse, shear, q_y[y, 0], q_x[0, x], y, x)

    def misfits(self, views: Sequence[View], heights_nm: Float64) -> Float64:
        """F if the sample were moved along its normal by each of some heights, from where it is laid now."""
        p_qv = self.spectra(views).T
        phase = np.exp(-1j * self.shear_vq.T[:, :, None] * heights_nm).astype(np.complex64)
        moved_qvh = p_qv[:, :, None] * phase
        left = np.matmul(self.inverse_qij, moved_qvh)
        return np.asarray(np.einsum("qvh,qvh->h", moved_qvh.conj(), left).real, dtype=np.float64)

    def spectra(self, views: Sequence[View]) -> Complex64:
        """What each view shows at the frequencies that count, shape (views, frequencies)."""
        found = np.empty((len(views), len(self.y)), np.complex64)
        for one, view in zip(found, views, strict=True):
            one[:] = _without_mean(view.signal_yx, self.window)[self.y, self.x]
        return found

    def pull(self, p_vq: Complex64, number: int, view: View) -> Pull:
        """What F says of moves of one view, as it is laid now, where the others show `p_vq`."""
        slopes = np.gradient(view.signal_yx, self.voxel_nm)
        b = np.stack([self.window.transformed(slopes[axis])[self.y, self.x] for axis in (0, 1)])
        p = _without_mean(view.signal_yx, self.window)[self.y, self.x]
        inverse = self.inverse_qij[:, number]
        own = inverse[:, number].real
        left = np.einsum("qj,jq->q", inverse, p_vq) + own * (p - p_vq[number])
        q = np.stack([self.q_y, self.q_x])
        return Pull(
            2 * (b.conj() @ left).real,
            2 * ((b.conj() * own) @ b.T).real,
            2 * (q * (p.conj() * left).real) @ q.T,
            float(np.sum(np.abs(left) ** 2 / own)),
        )

    def normals(self, views: Sequence[View], turns_kvij: Float64) -> Normals:
        """What F says of moves of where views are looked up, (y, x) in nm of the sheared frame, view by view,
        then for what changes many views at once.

        Args:
            views: laid as they are now.
            turns_kvij: shape (unknowns, views, 2, 2): a point r = (y, x) from the sample's origin is looked up at
                ``r + turns r`` for one unit of the unknown.
        """
        n = len(views)
        p = np.empty((n, len(self.y)), np.complex64)
        b = np.empty((2, *p.shape), np.complex64)
        turned, bent = np.zeros((2, len(turns_kvij), *p.shape), np.complex64)
        y_nm, x_nm = (
            ((np.arange(m) - origin) * self.voxel_nm).astype(np.float32)
            for m, origin in zip(views[0].signal_yx.shape, self.origin_yx, strict=True)
        )
        for i, view in enumerate(views):
            slopes = np.gradient(view.signal_yx, self.voxel_nm)
            p[i] = _without_mean(view.signal_yx, self.window)[self.y, self.x]
            for axis in (0, 1):
                b[axis, i] = self.window.transformed(slopes[axis])[self.y, self.x]
            for k, matrix in enumerate(turns_kvij[:, i]):
                if matrix.any():
                    along = [
                        row[0] * y_nm[:, None] + row[1] * x_nm for row in matrix.astype(np.float32)
                    ]
                    change = slopes[0] * along[0] + slopes[1] * along[1]
                    turned[k, i] = self.window.transformed(change)[self.y, self.x]
                    of_change = np.gradient(change, self.voxel_nm)
                    again = of_change[0] * along[0] + of_change[1] * along[1]
                    bent[k, i] = self.window.transformed(again)[self.y, self.x]
        left = np.einsum("qij,jq->iq", self.inverse_qij, p)
        size = 2 * n + len(turned)
        gradient, matrix = np.zeros(size), np.zeros((size, size))
        gradient[: 2 * n] = 2 * np.einsum("aiq,iq->ia", b.conj(), left).real.ravel()
        for a in (0, 1):
            weighted = b[a].conj().T[:, :, None] * self.inverse_qij
            for c in (0, 1):
                matrix[a : 2 * n : 2, c : 2 * n : 2] = (
                    2 * np.einsum("qij,jq->ij", weighted, b[c]).real
                )
        for at, column in enumerate(turned, start=2 * n):
            of_column = np.einsum("qij,jq->iq", self.inverse_qij, column)
            gradient[at] = 2 * float(np.sum(column.conj() * left).real)
            matrix[: 2 * n, at] = 2 * np.einsum("aiq,iq->ia", b.conj(), of_column).real.ravel()
            matrix[at, : 2 * n] = matrix[: 2 * n, at]
            for other, second in enumerate(turned, start=2 * n):
                matrix[other, at] = 2 * float(np.sum(second.conj() * of_column).real)
        q = np.stack([self.q_y, self.q_x])
        own = 2 * np.einsum("aq,cq,iq->iac", q, q, (p.conj() * left).real)
        noise = np.zeros((size, size))
        for i, block in enumerate(own):
            noise[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
        for at, second in enumerate(bent, start=2 * n):
            noise[at, at] = -2 * float(np.sum(second.conj() * left).real)
        return Normals(gradient, matrix, noise, float(np.sum(p.conj() * left).real), p.size)


def inverse_less_noise(matrix: Float64, noise: Float64, least: float) -> Float64:
    """Inverse of a positive matrix less what noise put into it, of which a part `least` stays in every direction.

    >>> inverse_less_noise(np.diag([2.0, 4.0]), np.diag([1.0, 4.0]), 0.5)
    array([[1. , 0. ],
           [0. , 0.5]])
    """
    inverse = np.linalg.inv(np.linalg.cholesky(matrix))
    stiffness, modes = np.linalg.eigh(np.eye(len(matrix)) - inverse @ noise @ inverse.T)
    directions = inverse.T @ modes
    return np.asarray((directions / np.maximum(stiffness, least)) @ directions.T)


def _without_mean(image_yx: Float32, window: Window) -> Complex64:
    """Transform of the faded image less its mean, whose fading has structure of its own."""
    inside = image_yx[window.rows, window.columns]
    mean = float(np.average(inside, weights=window.weight_yx))
    return window.transformed(image_yx - np.float32(mean))


def _directions(views: Sequence[View], *, scalar: bool) -> Float64:
    """``w_i . w_j``: what two views have in common of a component of m, shape (views, views)."""
    if scalar:
        return np.ones((len(views), len(views)))
    t = np.tan(np.deg2rad([view.theta_deg for view in views]))
    phi = np.deg2rad([view.phi_deg for view in views])
    w = np.column_stack([t * np.cos(phi), -t * np.sin(phi), np.ones_like(t)])
    return np.asarray(w @ w.T)


def _shear(views: Sequence[View], q_y: Float64, q_x: Float64) -> Float64:
    """``s_i = t_i e_i . q``, shape (views, frequencies)."""
    t = np.tan(np.deg2rad([view.theta_deg for view in views]))
    phi = np.deg2rad([view.phi_deg for view in views])
    return np.asarray(np.outer(t * np.cos(phi), q_x) - np.outer(t * np.sin(phi), q_y))


def _expected(
    shear_v: Float64, q: float, direction: Float64, support: Support, voxel_nm: float
) -> npt.NDArray[np.complex128]:
    """G of the module's docstring but for the prior's power, shape (views, views)."""
    z = support.z_nm
    a = np.hypot(KAPPA_PER_NM, q) * np.abs(z[:, None] - z)
    along = (1 + a) * np.exp(-a) * np.outer(support.coverage_z, support.coverage_z)
    phase = np.exp(1j * np.outer(shear_v, z)) * np.sinc(shear_v * voxel_nm / 2 / np.pi)[:, None]
    return np.asarray(direction * (phase @ along @ phase.conj().T))
