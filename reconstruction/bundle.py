"""The bundle adjustment of module `alignment` in numbers: unknowns, residuals, derivatives, standard deviations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.sparse

from mistral_txm.reconstruction.poses import TO_VU, turn, turn_slope

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

ANGLE_PRIOR_DEG = 2.0
"""Standard deviation of the prior on inclination, lean, roll and tilt zero."""

OUTLIER_SIGMA = 3.0
"""Residuals beyond this many standard deviations count linearly, no longer as squares."""

FEWEST_FOR_SCALE = 4
"""Spheres in a view from which on its scale can be told from what is wrong with one of them."""

SCALE_SIGMA = 5.0
"""By so many standard deviations the views have to differ in scale before each is given its own."""


@dataclass(frozen=True)
class Observations:
    """All centres seen: which view of all series, which sphere, where (v, u), and its standard deviation, nm."""

    view: Intp
    sphere: Intp
    position_vu: Float64
    std_vu: Float64


class BundleModel:
    """The adjustment's unknowns in one vector, its residuals and their sparse derivatives.

    Order: spheres (x, y, z each), shifts (v, u each), inclination, lean, then phi, tilt zero and roll of each later
    series, then ln q of each view. Lengths in nm, angles in rad.
    """

    def __init__(
        self,
        theta_deg_s: Sequence[Float64],
        first_phi_deg: float,
        seen: Observations,
        spheres: int,
    ) -> None:
        self.theta = np.deg2rad(np.concatenate(list(theta_deg_s)))
        self.series = np.repeat(np.arange(len(theta_deg_s)), [len(one) for one in theta_deg_s])
        self.first_phi = np.deg2rad(first_phi_deg)
        self.seen = seen
        self.spheres, self.views, self.fit_scale = spheres, len(self.theta), False
        self.at_shift = 3 * spheres
        self.at_axis = self.at_shift + 2 * self.views
        self.at_mount = self.at_axis + 2
        self.at_scale = self.at_mount + 3 * (len(theta_deg_s) - 1)
        self.size = self.at_scale

    def free_scale(self) -> None:
        """Give every view a scale of its own, behind the other unknowns."""
        self.fit_scale = True
        self.size = self.at_scale + self.views

    def mounts(self, x: Float64) -> Float64:
        """Phi, tilt zero and roll of every series, shape (series, 3), rad."""
        return np.vstack(
            [[self.first_phi, 0.0, 0.0], x[self.at_mount : self.at_scale].reshape(-1, 3)]
        )

    def scale(self, x: Float64) -> Float64:
        """Magnification of every view."""
        return np.exp(x[self.at_scale :]) if self.fit_scale else np.ones(self.views)

    def _factors(self, x: Float64) -> tuple[list[Float64], list[Float64]]:
        """The rotations of every view from the camera to the sample, and their derivatives."""
        mounts = self.mounts(x)[self.series]
        inclination, lean = x[self.at_axis], x[self.at_axis + 1]
        turns = [
            (2, np.full(self.views, inclination)), (0, np.full(self.views, lean)),
            (1, -(self.theta + mounts[:, 1])), (0, mounts[:, 2]), (2, mounts[:, 0]),
        ]  # fmt: skip
        return [turn(*one) for one in turns], [turn_slope(*one) for one in turns]

    @staticmethod
    def _product(factors: Sequence[Float64]) -> Float64:
        inclination, lean, tilt, roll, phi = factors
        return np.asarray(TO_VU @ inclination @ lean @ tilt @ roll @ phi)

    def projections(self, x: Float64) -> Float64:
        """Matrices of all views, shape (views, 2, 3)."""
        return np.asarray(self.scale(x)[:, None, None] * self._product(self._factors(x)[0]))

    def residuals(self, x: Float64) -> Float64:
        """Predicted less seen in standard deviations (v, u of each), then the priors."""
        points = x[: self.at_shift].reshape(-1, 3)[self.seen.sphere]
        shift = x[self.at_shift : self.at_axis].reshape(-1, 2)[self.seen.view]
        predicted = np.einsum("nij,nj->ni", self.projections(x)[self.seen.view], points) + shift
        return np.concatenate(
            [((predicted - self.seen.position_vu) / self.seen.std_vu).ravel(), self._priors() @ x]
        )

    def _priors(self) -> scipy.sparse.csr_array:
        """Rows that hold what has a prior at 0: axis angles, roll and tilt zero; and the mean of ln q."""
        held = [self.at_axis, self.at_axis + 1]
        held += [i for i in range(self.at_mount, self.at_scale) if (i - self.at_mount) % 3]
        rows = scipy.sparse.lil_array((len(held) + self.fit_scale, self.size))
        for row, column in enumerate(held):
            rows[row, column] = 1 / np.deg2rad(ANGLE_PRIOR_DEG)
        if self.fit_scale:
            rows[len(held), self.at_scale :] = 1e4 / self.views
        return scipy.sparse.csr_array(rows)

    def jacobian(self, x: Float64) -> scipy.sparse.csr_array:
        """Derivatives of `residuals`."""
        seen, n = self.seen, len(self.seen.view)
        factors, slopes = self._factors(x)
        scale = self.scale(x)[:, None, None]
        points = x[: self.at_shift].reshape(-1, 3)[seen.sphere]
        rows: list[Intp] = []
        columns: list[Intp] = []
        values: list[Float64] = []

        def add(
            column_n: Intp, derivative_n2: Float64, which: npt.NDArray[np.bool_] | None = None
        ) -> None:
            for axis in (0, 1):
                kept = np.arange(n) if which is None else np.flatnonzero(which)
                rows.append(2 * kept + axis)
                columns.append(column_n[kept])
                values.append((derivative_n2[:, axis] / seen.std_vu[:, axis])[kept])

        matrix = (scale * self._product(factors))[seen.view]
        for axis in range(3):
            add(3 * seen.sphere + axis, matrix[:, :, axis])
        for axis in range(2):
            add(self.at_shift + 2 * seen.view + axis, np.tile(np.eye(2)[axis], (n, 1)))
        series = self.series[seen.view]
        # Factor, column of its angle for each observation, sign of the angle in the factor.
        mount = self.at_mount + 3 * (series - 1)
        for factor, column, sign in (
            (0, np.full(n, self.at_axis), 1.0), (1, np.full(n, self.at_axis + 1), 1.0),
            (4, mount, 1.0), (2, mount + 1, -1.0), (3, mount + 2, 1.0),
        ):  # fmt: skip
            changed = list(factors)
            changed[factor] = slopes[factor]
            slope = sign * (scale * self._product(changed))[seen.view]
            add(column, np.einsum("nij,nj->ni", slope, points), None if factor < 2 else series > 0)
        if self.fit_scale:
            add(self.at_scale + seen.view, np.einsum("nij,nj->ni", matrix, points))
        data = scipy.sparse.csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            (2 * n, self.size),
        )
        return scipy.sparse.csr_array(scipy.sparse.vstack([data, self._priors()]))

    def scale_is_seen(self, x: Float64) -> bool:
        """Whether what is left of the residuals says that the views differ in scale.

        Of each view alone ln q has the least-squares estimate ``g / h`` and ``g^2 / h`` is chi-squared of one degree
        of freedom if there is no such difference; their sum over the views is compared with what chance allows.
        """
        n = len(self.seen.view)
        points = x[: self.at_shift].reshape(-1, 3)[self.seen.sphere]
        fall = np.einsum("nij,nj->ni", self.projections(x)[self.seen.view], points)
        weights = 1 / self.seen.std_vu**2
        count = np.bincount(self.seen.view, minlength=self.views)
        # The shift of a view takes the mean of what a scale would do.
        mean = np.stack(
            [
                np.bincount(self.seen.view, weights[:, a] * fall[:, a], self.views)
                / np.maximum(np.bincount(self.seen.view, weights[:, a], self.views), 1e-30)
                for a in (0, 1)
            ],
            axis=1,
        )
        lever = (fall - mean[self.seen.view]) / self.seen.std_vu
        left = self.residuals(x)[: 2 * n].reshape(n, 2)
        left = left / np.sqrt(1 + (left / OUTLIER_SIGMA) ** 2)
        g = np.bincount(self.seen.view, np.sum(lever * left, axis=1), self.views)
        h = np.bincount(self.seen.view, np.sum(lever**2, axis=1), self.views)
        used = count >= FEWEST_FOR_SCALE
        views = int(used.sum())
        chi2 = float(np.sum(g[used] ** 2 / h[used]))
        return views > 0 and chi2 > views + SCALE_SIGMA * np.sqrt(2 * views)

    def gauge_rows(self, x: Float64) -> Float64:
        """What the gauge sets to zero, ``sum over seen views of P^T shift``, as rows (3, size)."""
        rows = np.zeros((3, self.size))
        projections = self.projections(x)
        for view in np.unique(self.seen.view):
            at = self.at_shift + 2 * view
            rows[:, at : at + 2] = projections[view].T
        return rows

    def in_gauge(self, x: Float64) -> Float64:
        """Move spheres and shifts to where the shifts are smallest."""
        views = np.unique(self.seen.view)
        projections = self.projections(x)[views]
        shift = x[self.at_shift : self.at_axis].reshape(-1, 2)
        move = np.linalg.solve(
            np.einsum("tij,tik->jk", projections, projections),
            np.einsum("tij,ti->j", projections, shift[views]),
        )
        moved = x.copy()
        moved[: self.at_shift] += np.tile(move, self.spheres)
        moved[self.at_shift : self.at_axis] = (shift - self.projections(x) @ move).ravel()
        return moved

    def std(self, x: Float64, weights: Float64) -> Float64:
        """Standard deviations of the unknowns in the gauge; infinite for views in which nothing was seen."""
        jacobian = self.jacobian(x)
        known = np.flatnonzero(np.asarray(abs(jacobian).sum(axis=0)).ravel() > 0)
        weighted = jacobian[:, known].multiply(np.sqrt(weights)[:, None]).tocsr()
        normal = (weighted.T @ weighted).toarray()
        unit = 1 / np.sqrt(np.diag(normal))
        gauge = self.gauge_rows(x)[:, known] * unit
        gauge /= np.linalg.norm(gauge, axis=1)[:, None]
        bordered = np.block([[normal * unit[:, None] * unit, gauge.T], [gauge, np.zeros((3, 3))]])
        covariance = np.linalg.inv(bordered)[: len(known), : len(known)]
        std = np.full(self.size, np.inf)
        std[known] = np.sqrt(np.maximum(np.diag(covariance), 0)) * unit
        return std


def solved(model: BundleModel, start: Float64) -> Float64:
    """Minimize the robust sum of squares; the first sphere stays, to hold the gauge meanwhile."""
    free = np.arange(3, model.size)
    seen_columns = np.asarray(abs(model.jacobian(start)).sum(axis=0)).ravel()[free] > 0
    free = free[seen_columns]

    def whole(part: Float64) -> Float64:
        x = start.copy()
        x[free] = part
        return x

    def residuals(part: Float64) -> Float64:
        return model.residuals(whole(part))

    def jacobian(part: Float64) -> scipy.sparse.csr_array:
        return model.jacobian(whole(part))[:, free]

    result = scipy.optimize.least_squares(
        residuals, start[free], jac=jacobian,
        loss="soft_l1", f_scale=OUTLIER_SIGMA, x_scale="jac", tr_solver="lsmr",
        tr_options={"atol": 1e-12, "btol": 1e-12, "maxiter": 4 * len(free), "regularize": False},
        xtol=1e-10, ftol=1e-10, gtol=1e-12, max_nfev=100,
    )  # fmt: skip
    return whole(np.asarray(result.x))
