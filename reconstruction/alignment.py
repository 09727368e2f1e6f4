"""Where the sample truly stood in every view, from fiducials: one adjustment of all tilts of all series.

A point r of the sample (frames: module `geometry`) falls in a view of tilt theta on

    ``(u, v) = q R(inclination) (u0, v0) + (shift_u, shift_v)``,
    ``u0 = x'' cos(theta) - z'' sin(theta)``, ``v0 = y'' cos(lean) - w sin(lean)``,
    ``w = x'' sin(theta) + z'' cos(theta)``, ``r'' = Rx(roll) Rz(phi) r``, ``theta = motor + tilt_zero``.

- **inclination** of the tilt axis turns the image counter-clockwise from u towards v; **lean** tips the axis
  towards the camera; both belong to the microscope and are common to all series.
- **shift**, free in every view: run-out, drift, the axis beside the image's centre.
- **phi**, **tilt_zero** and **roll**, one each per series: how the sample was put on the stage. Of the first series
  phi is what the person said and the other two are zero: that is the definition of the sample frame, not a result.
- q, the scale of a view, is 1, or free with the mean of ln q zero.

`adjust` minimizes ``sum of rho((predicted - seen) / std)``, rho the soft L1 loss, over the positions of the spheres
and all of these. The axis' angles, and what mounting leaves besides phi, have the prior 0 +- `ANGLE_PRIOR_DEG`, which
decides nothing unless two or three spheres lie too close together to tell.

**What fiducials cannot say** (the gauge): moving all spheres by c while every shift moves by the projection of -c
changes no image. The sample's origin is therefore put where ``sum over views of |shift|^2`` is smallest: in x and y
the middle of the field of view, in z the height of the tilt axis. Where the film's middle is must come from elsewhere
(spheres on its surface: `Alignment.with_origin`). Nor do they say what angle the film makes with the stage in the
first series, its true phi, or the pixel's size.

Standard deviations come from the normal matrix at the solution, with the robust weights and in this gauge; where the
residuals are larger than the centres' own standard deviations say, they are scaled by that factor. A view with one
fiducial alone has nothing to check it by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.optimize
import scipy.sparse

from mistral_txm.reconstruction.fiducials import Fiducials
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.tracks import Tracks, track

Float64 = npt.NDArray[np.float64]
Intp = npt.NDArray[np.intp]

ANGLE_PRIOR_DEG = 2.0
"""Standard deviation of the prior on inclination, lean, roll and tilt zero."""

CENTRE_FLOOR_NM = 0.1
"""What a centre is wrong by besides noise: 0.01 pixels, the fit's own bias."""

OUTLIER_SIGMA = 3.0
"""Residuals beyond this many standard deviations count linearly, no longer as squares."""

CONSTELLATION_NM = 120.0
"""Spheres of two series closer than this, after turning and moving, are the same: room for roll and tilt zero."""


@dataclass(frozen=True)
class MarkedSeries:
    """One tilt series with the fiducials that were found in it.

    phi_deg: azimuth at which the sample was mounted, as the person said. theta_deg_t: tilts by the motor, shape
    (views,). found_t: of `fiducials.find_fiducials`, one per view.
    """

    phi_deg: float
    theta_deg_t: npt.ArrayLike
    found_t: Sequence[Fiducials]


@dataclass(frozen=True)
class SeriesPose:
    """How one series stood, with standard deviations.

    phi_deg, tilt_zero_deg, roll_deg: of the mounting. theta_deg_t: true tilts, motor + tilt zero, shape (views,).
    shift_vu_nm_t: where the sample's origin falls in each view, from the image's centre, shape (views, 2), as
    `views.TiltSeries` takes it; NaN where no fiducial was seen. scale_t: magnification, shape (views,).
    """

    phi_deg: float
    std_phi_deg: float
    tilt_zero_deg: float
    std_tilt_zero_deg: float
    roll_deg: float
    std_roll_deg: float
    theta_deg_t: Float64
    shift_vu_nm_t: Float64
    std_shift_vu_nm_t: Float64
    scale_t: Float64
    residual_rms_nm_t: Float64


@dataclass(frozen=True)
class Alignment:
    """Poses of all views of all series, the spheres, and how well they agree.

    sphere_xyz_nm: in the sample frame, shape (spheres, 3), with std_xyz_nm. residual_rms_nm: of the centres, per
    coordinate, outliers left out; residual_rms_pixels: the same. outliers: observed centres more than `OUTLIER_SIGMA`
    standard deviations off. std_factor: by how much the residuals exceed the centres' own standard deviations.
    """

    series: tuple[SeriesPose, ...]
    inclination_deg: float
    std_inclination_deg: float
    lean_deg: float
    std_lean_deg: float
    sphere_xyz_nm: Float64
    std_xyz_nm: Float64
    residual_rms_nm: float
    residual_rms_pixels: float
    observations: int
    outliers: int
    std_factor: float

    def projection_t(self, number: int) -> Float64:
        """Matrices that take sample coordinates to (v, u) but for the shift, shape (views, 2, 3), of one series."""
        pose = self.series[number]
        return _projections(
            pose.theta_deg_t,
            pose.phi_deg,
            pose.roll_deg,
            self.inclination_deg,
            self.lean_deg,
            pose.scale_t,
        )

    def projected_vu_nm(self, number: int) -> Float64:
        """Where the spheres fall in the views of one series, shape (views, spheres, 2), also unseen ones: to mask."""
        pose = self.series[number]
        return np.asarray(
            np.einsum("tij,bj->tbi", self.projection_t(number), self.sphere_xyz_nm)
            + pose.shift_vu_nm_t[:, None]
        )

    def warp_t(self, number: int) -> Float64:
        """Matrices from where the film's points should fall to where they do, shape (views, 2, 2), in (v, u).

        A point of the film's mid-plane z = 0 should fall on ``v0 = y'``, ``u0 = x' cos(theta)``; it falls on
        ``warp (v0, u0) + shift``. Inclination, lean, roll and scale; the unit matrix where they are none. Beside the
        plane this errs by lean times z / cos(theta), less than a nm in a film.
        """
        pose = self.series[number]
        nominal = _projections(
            pose.theta_deg_t, pose.phi_deg, 0.0, 0.0, 0.0, np.ones(len(pose.scale_t))
        )
        return np.asarray(self.projection_t(number)[:, :, :2] @ np.linalg.inv(nominal[:, :, :2]))

    def with_origin(self, xyz_nm: npt.ArrayLike) -> Alignment:
        """Return the same poses with the sample's origin moved to a point of the present sample frame, nm.

        With spheres of radius R on a film whose surface is at ``top_nm``, the film's middle is at
        ``z = mean(z of these spheres) - R - top_nm``.
        """
        origin = np.asarray(xyz_nm, dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise InputError(f"origin: {xyz_nm!r} is not a point; give finite x, y, z in nm")
        moved = tuple(
            replace(pose, shift_vu_nm_t=pose.shift_vu_nm_t + self.projection_t(number) @ origin)
            for number, pose in enumerate(self.series)
        )
        return replace(self, series=moved, sphere_xyz_nm=self.sphere_xyz_nm - origin)


def _turn(axis: int, angle: float | Float64) -> Float64:
    """Right-handed rotations about a coordinate axis, shape (..., 3, 3); angle in rad."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., axis, axis] = 1
    matrix[..., i, i] = matrix[..., j, j] = c
    matrix[..., i, j], matrix[..., j, i] = -s, s
    return matrix


def _turn_slope(axis: int, angle: float | Float64) -> Float64:
    """Derivative of `_turn` by its angle."""
    slope = _turn(axis, np.asarray(angle) + np.pi / 2)
    slope[..., axis, axis] = 0
    return slope


_VU = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def _projections(
    theta_deg_t: Float64,
    phi_deg: float,
    roll_deg: float,
    inclination_deg: float,
    lean_deg: float,
    scale_t: Float64,
) -> Float64:
    """Matrices (views, 2, 3) of the module's docstring, rows v and u.

    With tilt zero a rotation by -theta about y' in the right-handed sense: x'' cos - z'' sin.
    """
    detector = _VU @ _turn(2, np.deg2rad(inclination_deg)) @ _turn(0, np.deg2rad(lean_deg))
    mount = _turn(0, np.deg2rad(roll_deg)) @ _turn(2, np.deg2rad(phi_deg))
    return np.asarray(
        scale_t[:, None, None] * (detector @ _turn(1, -np.deg2rad(theta_deg_t)) @ mount)
    )


@dataclass(frozen=True)
class _Observations:
    """All centres seen: which view of all series, which sphere, where (v, u), and its standard deviation, nm."""

    view: Intp
    sphere: Intp
    position_vu: Float64
    std_vu: Float64


class _Model:
    """The adjustment's unknowns in one vector, its residuals and their sparse derivatives.

    Order: spheres (x, y, z each), shifts (v, u each), inclination, lean, then phi, tilt zero and roll of each later
    series, then ln q of each view. Lengths in nm, angles in rad.
    """

    def __init__(
        self,
        theta_deg_s: Sequence[Float64],
        first_phi_deg: float,
        seen: _Observations,
        spheres: int,
        fit_scale: bool,
    ) -> None:
        self.theta = np.deg2rad(np.concatenate(list(theta_deg_s)))
        self.series = np.repeat(np.arange(len(theta_deg_s)), [len(one) for one in theta_deg_s])
        self.first_phi = np.deg2rad(first_phi_deg)
        self.seen = seen
        self.spheres, self.views, self.fit_scale = spheres, len(self.theta), fit_scale
        self.at_shift = 3 * spheres
        self.at_axis = self.at_shift + 2 * self.views
        self.at_mount = self.at_axis + 2
        self.at_scale = self.at_mount + 3 * (len(theta_deg_s) - 1)
        self.size = self.at_scale + (self.views if fit_scale else 0)

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
        return [_turn(*one) for one in turns], [_turn_slope(*one) for one in turns]

    @staticmethod
    def _product(factors: Sequence[Float64]) -> Float64:
        inclination, lean, tilt, roll, phi = factors
        return np.asarray(_VU @ inclination @ lean @ tilt @ roll @ phi)

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
        covariance = np.linalg.pinv(bordered, rcond=1e-13, hermitian=True)[
            : len(known), : len(known)
        ]
        std = np.full(self.size, np.inf)
        std[known] = np.sqrt(np.maximum(np.diag(covariance), 0)) * unit
        return std


def _solved(model: _Model, start: Float64) -> Float64:
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


def _observations(tracks: Sequence[Tracks], sphere_of: Sequence[Intp]) -> _Observations:
    """Gather the centres of all series; sphere_of numbers the spheres of each series in common."""
    views, spheres, positions, stds = [], [], [], []
    first = 0
    for one, number in zip(tracks, sphere_of, strict=True):
        view, column = np.nonzero(np.isfinite(one.position_tb_vu_nm[:, :, 0]))
        views.append(view + first)
        spheres.append(number[column])
        positions.append(one.position_tb_vu_nm[view, column])
        stds.append(one.std_tb_vu_nm[view, column])
        first += len(one.position_tb_vu_nm)
    std = np.hypot(np.concatenate(stds), CENTRE_FLOOR_NM)
    return _Observations(
        np.concatenate(views), np.concatenate(spheres), np.concatenate(positions), std
    )


def _adjusted(model: _Model, start: Float64, pixel_nm: float, counts: Sequence[int]) -> Alignment:
    """Solve twice, the second time with the standard deviations that the residuals show, and collect the result."""
    x = _solved(model, start)
    count = 2 * len(model.seen.view)
    parameters = model.size - 3
    raw = np.abs(model.residuals(x)[:count])
    freedom = max(1.0 - parameters / count, 0.1)
    factor = max(1.0, 1.4826 * float(np.median(raw)) / np.sqrt(freedom))
    if factor > 1.0:
        model.seen = replace(model.seen, std_vu=model.seen.std_vu * factor)
        x = _solved(model, x)
    x = model.in_gauge(x)
    residuals = model.residuals(x)
    std = model.std(x, 1 / np.sqrt(1 + (residuals / OUTLIER_SIGMA) ** 2))
    sigma = residuals[:count].reshape(-1, 2)
    off_nm = sigma * model.seen.std_vu
    outlier = (np.abs(sigma) > OUTLIER_SIGMA).any(axis=1)
    rms_nm = float(np.sqrt(np.mean(off_nm[~outlier] ** 2))) if (~outlier).any() else np.inf
    squares = np.bincount(model.seen.view, (off_nm**2).sum(axis=1), model.views)
    seen = np.bincount(model.seen.view, minlength=model.views)
    with np.errstate(invalid="ignore", divide="ignore"):
        rms_t = np.sqrt(squares / (2 * seen))
    shift, std_shift = (a[model.at_shift : model.at_axis].reshape(-1, 2) for a in (x, std))
    shift = np.where(seen[:, None] > 0, shift, np.nan)
    mounts = np.rad2deg(model.mounts(x))
    std_mounts = np.rad2deg(
        np.vstack([np.zeros(3), std[model.at_mount : model.at_scale].reshape(-1, 3)])
    )
    poses, first = [], 0
    for number, views in enumerate(counts):
        part = slice(first, first + views)
        first += views
        poses.append(
            SeriesPose(
                float(mounts[number, 0]), float(std_mounts[number, 0]),
                float(mounts[number, 1]), float(std_mounts[number, 1]),
                float(mounts[number, 2]), float(std_mounts[number, 2]),
                np.rad2deg(model.theta[part]) + mounts[number, 1],
                shift[part], std_shift[part], model.scale(x)[part], rms_t[part],
            )
        )  # fmt: skip
    axis, std_axis = (np.rad2deg(a[model.at_axis : model.at_mount]) for a in (x, std))
    return Alignment(
        tuple(poses), float(axis[0]), float(std_axis[0]), float(axis[1]), float(std_axis[1]),
        x[: model.at_shift].reshape(-1, 3), std[: model.at_shift].reshape(-1, 3),
        rms_nm, rms_nm / pixel_nm, len(model.seen.view), int(outlier.sum()), factor,
    )  # fmt: skip


def match_constellations(
    first_xyz_nm: npt.ArrayLike,
    second_xyz_nm: npt.ArrayLike,
    phi_deg: float,
    *,
    within_deg: float = 10.0,
) -> tuple[float, Float64, Intp]:
    """Find the azimuth by which the spheres of one series are turned into those of another.

    Every two spheres of the first and every two of the second at the same distance propose an azimuth and a move,
    ``second = Rz(phi) first + move``; the proposal on which most spheres agree is refined over these.

    Args:
        first_xyz_nm: spheres, shape (n, 3).
        second_xyz_nm: spheres in the other series' stage frame, shape (m, 3).
        phi_deg: azimuth as the person said. within_deg: how far the true one may be from it.

    Returns:
        Azimuth in deg; the move, shape (3,), nm; and pairs of numbers, shape (pairs, 2).

    Raises:
        InputError: if fewer than three spheres agree, or as many agree on another azimuth or move.

    >>> first = np.array([[0.0, 0.0, 0.0], [3000.0, 0.0, 50.0], [0.0, 1000.0, 0.0]])
    >>> second = np.array([[500.0, 3000.0, 50.0], [500.0, 0.0, 0.0], [-500.0, 0.0, 0.0]])
    >>> phi, move, pairs = match_constellations(first, second, 85.0)
    >>> round(phi, 6), move.round(6) + 0.0, pairs.tolist()
    (90.0, array([500.,   0.,   0.]), [[0, 1], [1, 0], [2, 2]])
    """
    first, second = np.asarray(first_xyz_nm, np.float64), np.asarray(second_xyz_nm, np.float64)
    i, j = np.triu_indices(len(first), 1)
    k, m = np.nonzero(~np.eye(len(second), dtype=bool))
    baseline, other = first[j] - first[i], second[m] - second[k]
    length, other_length = (np.hypot(d[:, 0], d[:, 1]) for d in (baseline, other))
    turned = np.rad2deg(
        np.arctan2(other[None, :, 1], other[None, :, 0])
        - np.arctan2(baseline[:, None, 1], baseline[:, None, 0])
    )
    off = (turned - phi_deg + 180) % 360 - 180
    proposals = np.argwhere(
        (np.abs(off) <= within_deg)
        & (np.abs(length[:, None] - other_length[None]) < CONSTELLATION_NM)
        & (np.minimum(length[:, None], other_length[None]) > 3 * CONSTELLATION_NM)
    )
    ranked: list[tuple[int, float, float, Float64, Intp]] = []
    for a, b in proposals:
        angle = phi_deg + off[a, b]
        move = (second[[k[b], m[b]]] - first[[i[a], j[a]]] @ _turn(2, np.deg2rad(angle)).T).mean(
            axis=0
        )
        pairs = np.zeros((0, 2), np.intp)
        for _ in range(3):
            laid = first @ _turn(2, np.deg2rad(angle)).T + move
            distance = np.linalg.norm(laid[:, None] - second[None], axis=2)
            nearest = distance.argmin(axis=1)
            number = np.arange(len(first))
            mutual = distance.argmin(axis=0)[nearest] == number
            pairs = np.argwhere(mutual & (distance[number, nearest] < CONSTELLATION_NM))
            pairs = np.column_stack([pairs[:, 0], nearest[pairs[:, 0]]])
            if len(pairs) < 2:
                break
            angle, move = _turned(first[pairs[:, 0]], second[pairs[:, 1]], phi_deg)
        if len(pairs) >= 3:
            laid = first[pairs[:, 0]] @ _turn(2, np.deg2rad(angle)).T + move
            rms = float(np.sqrt(np.mean((laid - second[pairs[:, 1]]) ** 2)))
            ranked.append((len(pairs), -rms, angle, move, pairs))
    if not ranked:
        raise InputError(
            f"azimuth: the constellations of {len(first)} and {len(second)} fiducials have fewer than 3 in common "
            f"within {within_deg:g} deg of phi = {phi_deg:g} deg; check the azimuth that was given"
        )
    count, _, angle, move, pairs = max(ranked, key=lambda one: one[:2])
    for rival in ranked:
        same = {tuple(pair) for pair in rival[4]} & {tuple(pair) for pair in pairs}
        if rival[0] == count and len(same) < 2:
            raise InputError(
                f"azimuth: {count} fiducials agree on phi = {angle:.2f} deg and as many on {rival[2]:.2f} deg; take a "
                "field of view with more fiducials, or one of these as the azimuth"
            )
    return float(angle), move, pairs


def _turned(first: Float64, second: Float64, phi_deg: float) -> tuple[float, Float64]:
    """Azimuth and move of least squares between paired spheres."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    angle = np.rad2deg(
        np.arctan2(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]), np.sum(a[:, :2] * b[:, :2]))
    )
    angle = phi_deg + (angle - phi_deg + 180) % 360 - 180
    return float(angle), second.mean(axis=0) - _turn(2, np.deg2rad(angle)) @ first.mean(axis=0)


def adjust(
    series: Sequence[MarkedSeries],
    pixel_nm: float,
    *,
    within_deg: float = 10.0,
    fit_scale: bool = False,
) -> Alignment:
    """Find the poses of all views of all series from the fiducials in them.

    Each series alone gives its spheres in three dimensions; the constellations of later series are found in the first,
    which gives their azimuths; then everything is adjusted together.

    Args:
        series: at least one; the first defines the sample frame.
        pixel_nm: pixel, nm.
        within_deg: how far the true azimuths of later series may be from what was said.
        fit_scale: whether every view has a magnification of its own.

    Raises:
        InputError: if there are too few fiducials, or constellations do not match.
    """
    if not series:
        raise InputError("alignment: no tilt series; give at least one")
    theta = [np.asarray(one.theta_deg_t, dtype=np.float64) for one in series]
    tracks = [track(t, one.found_t) for t, one in zip(theta, series, strict=True)]
    alone = []
    for one, t, tracked in zip(series, theta, tracks, strict=True):
        number = np.arange(len(tracked.stage_xyz_nm))
        model = _Model([t], 0.0, _observations([tracked], [number]), len(number), False)
        start = np.zeros(model.size)
        start[: model.at_shift] = tracked.stage_xyz_nm.ravel()
        start[model.at_shift : model.at_axis] = np.nan_to_num(tracked.shift_vu_nm_t).ravel()
        if len(series) == 1:
            model = _Model([t], one.phi_deg, model.seen, len(number), fit_scale)
            turned = tracked.stage_xyz_nm @ _turn(2, np.deg2rad(one.phi_deg))
            start = np.concatenate(
                [turned.ravel(), start[model.at_shift :], np.zeros(model.size - len(start))]
            )
            return _adjusted(model, start, pixel_nm, [len(t)])
        alone.append(_adjusted(model, start, pixel_nm, [len(t)]))
    return _joined(series, theta, tracks, alone, pixel_nm, within_deg, fit_scale)


def _joined(
    series: Sequence[MarkedSeries],
    theta: Sequence[Float64],
    tracks: Sequence[Tracks],
    alone: Sequence[Alignment],
    pixel_nm: float,
    within_deg: float,
    fit_scale: bool,
) -> Alignment:
    """Match the later series with the first and adjust all of them together."""
    first_phi = series[0].phi_deg
    spheres = alone[0].sphere_xyz_nm @ _turn(2, np.deg2rad(first_phi))
    sphere_of = [np.arange(len(spheres))]
    shifts = [np.nan_to_num(alone[0].series[0].shift_vu_nm_t)]
    mounts: list[float] = []
    for one, own in zip(series[1:], alone[1:], strict=True):
        phi, move, pairs = match_constellations(
            spheres, own.sphere_xyz_nm, one.phi_deg, within_deg=within_deg
        )
        number = np.full(len(own.sphere_xyz_nm), -1)
        number[pairs[:, 1]] = pairs[:, 0]
        new = np.flatnonzero(number < 0)
        number[new] = len(spheres) + np.arange(len(new))
        placed = (own.sphere_xyz_nm[new] - move) @ _turn(2, np.deg2rad(phi))
        spheres = np.vstack([spheres, placed])
        sphere_of.append(number)
        pose = own.with_origin(move)
        shifts.append(np.nan_to_num(pose.series[0].shift_vu_nm_t))
        mounts += [np.deg2rad(phi), 0.0, 0.0]
    model = _Model(
        list(theta), first_phi, _observations(tracks, sphere_of), len(spheres), fit_scale
    )
    axis = np.deg2rad(
        [np.mean([a.inclination_deg for a in alone]), np.mean([a.lean_deg for a in alone])]
    )
    start = np.zeros(model.size)
    start[: model.at_scale] = np.concatenate(
        [spheres.ravel(), np.concatenate(shifts).ravel(), axis, mounts]
    )
    return _adjusted(model, start, pixel_nm, [len(t) for t in theta])


def straightened(
    image_vu: npt.ArrayLike, warp_vu: npt.ArrayLike, shift_vu_nm: npt.ArrayLike, pixel_nm: float
) -> Float64:
    """Resample an image to where the film's points should fall: no shift, inclination or lean is left.

    A cubic spline evaluated at ``warp (v0, u0) + shift`` (`Alignment.warp_t`).

    Args:
        image_vu: [v, u], NaN where masked.
        warp_vu: shape (2, 2). shift_vu_nm: (v, u). pixel_nm: pixel, nm.

    Returns:
        The image, NaN where a masked pixel or what lies outside would be needed.
    """
    image = np.asarray(image_vu, dtype=np.float64)
    warp = np.asarray(warp_vu, dtype=np.float64)
    bad = ~np.isfinite(image)
    middle = (np.array(image.shape) - 1) / 2
    offset = middle + np.asarray(shift_vu_nm, np.float64) / pixel_nm - warp @ middle
    # Masked pixels are given their neighbours' values for the spline alone.
    nearest = scipy.ndimage.distance_transform_edt(bad, return_distances=False, return_indices=True)
    filled = image[tuple(nearest)] if bad.any() else image
    result = scipy.ndimage.affine_transform(filled, warp, offset, order=3, mode="nearest")
    unknown = scipy.ndimage.affine_transform(
        bad.astype(np.float64), warp, offset, order=1, cval=1.0
    )
    return np.where(unknown > 1e-6, np.nan, result)
