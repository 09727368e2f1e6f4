"""The truth that the simulated beamline writes beside its data, and how far a volume is from it.

Lengths in nm from the centre of the volume; vector fields are ``[component, z, y, x]``. Voxel ``i``
of ``n`` sits at ``(i - (n - 1) / 2) * voxel_nm``, so volumes of different size and voxel share
their centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mistral_txm.reconstruction import topology
from mistral_txm.reconstruction.volume_file import Volume

MATCH_WITHIN_NM = 100.0
"""Farthest distance at which a found singularity is taken for a true one: a little over the axial
resolution of two azimuths (85 nm in the paper)."""
FARTHEST_MOVE_NM = 500.0
"""The middle of the fields of view is not farther than this from the origin of the truth."""


class PointCharge(Protocol):
    """A singularity: where, and with which topological charge."""

    @property
    def x_nm(self) -> float:
        """Position along x."""

    @property
    def y_nm(self) -> float:
        """Position along y."""

    @property
    def z_nm(self) -> float:
        """Position along z."""

    @property
    def charge(self) -> float:
        """Topological charge Q."""


@dataclass(frozen=True)
class TrueSingularity:
    """A singularity of the texture that was measured, as the simulated beamline states it.

    ``kind`` is the beamline's word: a Bloch point has an integer charge on any closed surface
    around it, a meron a half-integer one in its plane only, a skyrmion an integer one there, and
    the charge of a hopfion is its Hopf index. ``radius_nm`` is half the side of the cube or square
    that holds the charge.
    """

    x_nm: float
    y_nm: float
    z_nm: float
    charge: float
    kind: str
    radius_nm: float = 0.0


@dataclass(frozen=True)
class FoundSingularity:
    """A singularity of a reconstructed volume.

    ``radius_nm`` is that of the smallest region that holds the whole charge: the smaller, the
    better it is confirmed.
    """

    x_nm: float
    y_nm: float
    z_nm: float
    charge: float
    kind: str
    radius_nm: float


@dataclass(frozen=True)
class Truth:
    """The magnetization that was measured: unit vectors ``[component, z, y, x]``, zero outside the
    magnetic layers."""

    m_czyx: NDArray[np.float32]
    voxel_nm: float
    delta_per_nm: float
    layers_nm: tuple[tuple[float, float], ...]
    singularities: tuple[TrueSingularity, ...]
    texture: str
    fiducials_xyz_nm: tuple[tuple[float, float, float], ...] = ()


def read_truth(path: Path) -> Truth:
    """Read a ``truth.h5``.

    Raises:
        ValueError: the file is missing, is no HDF5 file, or lacks a dataset or attribute, which the
            message names.
    """
    try:
        with h5py.File(path) as file:
            m_czyx = np.stack(
                [np.asarray(file[name], dtype=np.float32) for name in ("mx", "my", "mz")]
            )
            points = file["singularities"]
            columns = [
                np.atleast_1d(points[name][...])
                for name in ("x_nm", "y_nm", "z_nm", "charge", "kind")
            ]
            # Points need none; only what fills a square or a box has one.
            none = np.zeros(len(columns[0]))
            columns.append(np.atleast_1d(points["radius_nm"]) if "radius_nm" in points else none)
            spheres: list[NDArray[np.float64]] = [
                np.atleast_1d(file["fiducials"][name][...]) if "fiducials" in file else np.zeros(0)
                for name in ("x_nm", "y_nm", "z_nm")
            ]
            return Truth(
                m_czyx=m_czyx,
                voxel_nm=float(file.attrs["voxel_nm"]),
                delta_per_nm=float(file.attrs["delta_per_nm"]),
                layers_nm=tuple(
                    (float(low), float(high))
                    for low, high in np.atleast_2d(file.attrs["layers_nm"])
                ),
                singularities=tuple(
                    TrueSingularity(
                        float(x), float(y), float(z), float(charge), _text(kind), float(radius)
                    )
                    for x, y, z, charge, kind, radius in zip(*columns, strict=True)
                ),
                texture=_text(file.attrs.get("texture", "")),
                fiducials_xyz_nm=tuple(
                    (float(x), float(y), float(z)) for x, y, z in zip(*spheres, strict=True)
                ),
            )
    except (OSError, KeyError, ValueError) as cause:
        raise ValueError(f"{path}: not a truth file of the simulated beamline: {cause}") from cause


def fiducials_move_xy_nm(
    truth: Truth, found_xyz_nm: Sequence[Sequence[float]], *, within_nm: float = 30.0
) -> tuple[float, float]:
    """How far the fiducials found lie beside the true ones, laterally; (0, 0) if fewer than two agree on a move.

    The lateral origin of the sample frame is nothing that data could tell: it is where the fields of view are centred.

    Args:
        truth: with fiducials.
        found_xyz_nm: fiducials in the frame of the volume.
        within_nm: how far each may be from the move that all share.

    >>> true = Truth(np.zeros((3, 1, 1, 1)), 1.0, 1.0, (), (), "", ((0.0, 0.0, 9.0), (900.0, 500.0, 9.0)))
    >>> fiducials_move_xy_nm(true, [(910.0, 480.0, 2.0), (10.0, -20.0, 2.0)])
    (10.0, -20.0)
    """
    found = np.array(found_xyz_nm, dtype=np.float64).reshape(-1, 3)[:, :2]
    true = np.array(truth.fiducials_xyz_nm, dtype=np.float64).reshape(-1, 3)[:, :2]
    if len(found) < 2 or len(true) < 2:
        return 0.0, 0.0
    moves = (found[:, None] - true[None]).reshape(-1, 2)
    ranked = []
    for move in moves[np.hypot(*moves.T) < FARTHEST_MOVE_NM]:
        off = found[:, None] - true[None] - move
        nearest = np.hypot(off[..., 0], off[..., 1]).argmin(axis=1)
        off = off[np.arange(len(found)), nearest]
        near = np.hypot(*off.T) < within_nm
        ranked.append((int(near.sum()), -float(np.hypot(*move)), move + off[near].mean(axis=0)))
    if not ranked:
        return 0.0, 0.0
    agreeing, _, best = max(ranked, key=lambda one: one[:2])
    return (float(best[0]), float(best[1])) if agreeing >= 2 else (0.0, 0.0)


def moved(truth: Truth, move_xy_nm: tuple[float, float]) -> Truth:
    """The truth with its origin moved: what was at (x, y) is at ``(x, y) + move``.

    Each plane by a cubic spline; at the border the border goes on, to be left out as margin.
    """
    x_nm, y_nm = move_xy_nm
    if x_nm == y_nm == 0:
        return truth
    shift = (y_nm / truth.voxel_nm, x_nm / truth.voxel_nm)
    m_czyx = np.empty_like(truth.m_czyx)
    for index in np.ndindex(m_czyx.shape[:2]):
        m_czyx[index] = scipy.ndimage.shift(truth.m_czyx[index], shift, mode="nearest")
    magnetic_zyx = np.any(truth.m_czyx != 0, axis=0)
    for z, magnetic_yx in enumerate(magnetic_zyx):
        inside = scipy.ndimage.shift(magnetic_yx.astype(np.float32), shift, order=1, mode="nearest")
        m_czyx[:, z, inside < 0.5] = 0
    return replace(
        truth,
        m_czyx=m_czyx,
        singularities=tuple(
            replace(each, x_nm=each.x_nm + x_nm, y_nm=each.y_nm + y_nm)
            for each in truth.singularities
        ),
        fiducials_xyz_nm=tuple((x + x_nm, y + y_nm, z) for x, y, z in truth.fiducials_xyz_nm),
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def resample(
    m_czyx: NDArray[np.float32],
    voxel_nm: float,
    shape_zyx: tuple[int, int, int],
    to_voxel_nm: float,
) -> NDArray[np.float32]:
    """Bring a field onto another grid with the same centre, by linear interpolation; NaN where it
    does not reach.

    Args:
        m_czyx: field ``[component, z, y, x]``.
        voxel_nm: its voxel edge.
        shape_zyx: voxels of the new grid.
        to_voxel_nm: voxel edge of the new grid.

    >>> line = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4)
    >>> resample(line, 10.0, (1, 1, 3), 10.0).ravel().tolist()
    [0.5, 1.5, 2.5]
    >>> resample(line, 10.0, (1, 1, 6), 10.0).ravel().tolist()
    [nan, 0.0, 1.0, 2.0, 3.0, nan]
    """
    for axis, n_new in enumerate(shape_zyx, start=1):
        n_old = m_czyx.shape[axis]
        where = (np.arange(n_new) - (n_new - 1) / 2) * (to_voxel_nm / voxel_nm) + (n_old - 1) / 2
        where = np.round(where, 6)
        low = np.clip(np.floor(where).astype(int), 0, n_old - 1)
        weight = np.where((where < 0) | (where > n_old - 1), np.nan, where - low)
        if np.all(weight == 0):
            m_czyx = m_czyx.take(low, axis)
            continue
        weight_1d = weight.astype(np.float32).reshape(-1, *(1,) * (m_czyx.ndim - axis - 1))
        high = np.minimum(low + 1, n_old - 1)
        m_czyx = m_czyx.take(low, axis) * (1 - weight_1d) + m_czyx.take(high, axis) * weight_1d
    return m_czyx


def unit_factor(volume: Volume, truth: Truth) -> float:
    """Factor that brings a volume to unit magnetization: ``1 / delta`` of the truth if it is in
    units of the signal."""
    return 1.0 / truth.delta_per_nm if volume.unit == "1/nm" else 1.0


def in_layers(volume: Volume, layers_nm: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """The field ``[component, z, y, x]`` of a volume, zero outside the layers if there are any."""
    return replace(volume, layers_nm=tuple(layers_nm)).magnetic_czyx


def singularities_in_layers(
    volume: Volume, layers_nm: Sequence[tuple[float, float]]
) -> list[FoundSingularity]:
    """Bloch points and merons of a volume, the strongest and best confirmed first.

    A meron beside a Bloch point is left out: the planar charge of a slice changes at a Bloch point
    anyway. Only the magnetic layers are searched where they are known: elsewhere a reconstruction
    without a prior is a faint echo whose direction means nothing.
    """
    m_czyx = in_layers(volume, layers_nm)
    found = [
        FoundSingularity(p.x_nm, p.y_nm, p.z_nm, float(p.charge), "Bloch point", p.radius_nm)
        for p in topology.find_singularities(m_czyx, volume.voxel_nm)
    ]
    points = list(found)
    for spot in topology.find_merons(m_czyx, volume.voxel_nm):
        if (
            spot.kind == "meron"
            and spot.x_nm is not None
            and spot.y_nm is not None
            and spot.charge is not None
            and spot.radius_nm is not None
            and all(
                np.hypot(np.hypot(spot.x_nm - p.x_nm, spot.y_nm - p.y_nm), spot.z_nm - p.z_nm)
                > MATCH_WITHIN_NM
                for p in points
            )
        ):
            found.append(
                FoundSingularity(
                    spot.x_nm, spot.y_nm, spot.z_nm, spot.charge, spot.kind, spot.radius_nm
                )
            )
    return found


def margin_seen_by_all_nm(
    width_nm: float, half_depth_nm: float, phi_deg: Sequence[float], steepest_tilt_deg: float
) -> float:
    """Lateral margin that leaves the square which every view of every azimuth sees undisturbed.

    The square of half side a, turned by phi, must stay inside the field of half width w and off its
    border by what a ray moves sideways in the film: ``a (|cos phi| + |sin phi|) + h tan(theta) <=
    w``. At least half of the width is left: beyond that the whole field is disturbed, and only its
    middle can be judged.

    Args:
        width_nm: lateral size of the field.
        half_depth_nm: half height h of the magnetic part.
        phi_deg: the azimuths.
        steepest_tilt_deg: largest tilt of either sign.

    >>> round(margin_seen_by_all_nm(2688.0, 120.0, [0.0], 55.0))
    171
    >>> round(margin_seen_by_all_nm(2688.0, 120.0, [0.0, 102.0], 55.0))
    355
    """
    spread = max(abs(np.cos(np.radians(phi))) + abs(np.sin(np.radians(phi))) for phi in phi_deg)
    sideways_nm = half_depth_nm * np.tan(np.radians(abs(steepest_tilt_deg)))
    half_side_nm = (width_nm / 2 - sideways_nm) / spread
    return float(min(width_nm / 2 - half_side_nm, width_nm / 4))


def magnetic_pairs(
    volume: Volume, truth: Truth, margin_nm: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Reconstructed and true vectors, ``[component, voxel]``, in the magnetic voxels of the truth.

    The volume is interpolated linearly at the voxels of the truth and brought to unit magnetization
    by `unit_factor`; voxels that it does not cover, or within the margin, are left out.

    Returns:
        Both, and the fraction of the voxels inside the margin that the volume covers.

    Raises:
        ValueError: no voxel is left.
    """
    shape_zyx = truth.m_czyx.shape[1:]
    seen_yx = _inside(shape_zyx[1], truth.voxel_nm, margin_nm)[:, None] & _inside(
        shape_zyx[2], truth.voxel_nm, margin_nm
    )
    magnetic_zyx = np.any(truth.m_czyx != 0, axis=0) & seen_yx
    r_czyx = resample(volume.m_czyx, volume.voxel_nm, shape_zyx, truth.voxel_nm)
    compared_zyx = magnetic_zyx & np.all(np.isfinite(r_czyx), axis=0)
    if not compared_zyx.any():
        raise ValueError(
            f"no magnetic voxel of the truth lies inside the volume and {margin_nm:g} nm from its "
            "border; compare with a smaller margin"
        )
    r_cn = r_czyx[:, compared_zyx].astype(np.float64) * unit_factor(volume, truth)
    t_cn = truth.m_czyx[:, compared_zyx].astype(np.float64)
    return r_cn, t_cn, float(compared_zyx.sum() / magnetic_zyx.sum())


def angles_deg(r_cn: NDArray[np.float64], t_cn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle between vectors ``[component, voxel]``, of those voxels where neither is zero.

    >>> angles_deg(np.array([[1.0, 0], [0, 0], [0, 0]]), np.array([[1.0, 1], [1, 0], [0, 0]]))
    array([45.])
    """
    lengths_n = np.linalg.norm(r_cn, axis=0) * np.linalg.norm(t_cn, axis=0)
    defined_n = lengths_n > 0
    cosine_n = np.sum(r_cn * t_cn, axis=0)[defined_n] / lengths_n[defined_n]
    angle_deg: NDArray[np.float64] = np.degrees(np.arccos(np.clip(cosine_n, -1, 1)))
    return angle_deg


def compare_with_truth(
    volume: Volume,
    truth: Truth,
    *,
    found: Sequence[PointCharge] | None = None,
    margin_nm: float = 0.0,
    within_nm: float = MATCH_WITHIN_NM,
) -> dict[str, Any]:
    """How far a reconstructed volume is from the truth, over the magnetic voxels that all views
    see.

    With r the volume (linearly interpolated at the voxels of the truth) and t the truth:

    - ``correlation`` of a component: Pearson's; None where the truth or the volume is constant;
    - ``amplitude_ratio``: ``sum(r t) / sum(t t)``, the part of the true amplitude that came back;
      None where t = 0;
    - ``relative_vector_error``: ``sqrt(sum |r - t|^2 / sum |t|^2)``;
    - ``median_angle_error_deg``: median angle between r and t; ``undefined_angle_fraction`` of the
      voxels have r = 0;
    - ``singularities``: `match_singularities` of ``found`` and the true points and merons;
    - ``skyrmions``, ``hopfions``: `compare_skyrmions` and `compare_hopfions`, of those that lie
      inside the margin as a whole.

    A volume in units of the signal is divided by the truth's delta first
    (``scaled_by_true_delta``).

    Args:
        volume: the three components, any grid with the same centre.
        truth: as read by `read_truth`.
        found: singularities found in the volume; None: search them with `singularities_in_layers`.
        margin_nm: this much is left out at each lateral border of the truth, where not all views
            look.
        within_nm: the farthest match of a singularity.

    Raises:
        ValueError: no magnetic voxel is left inside the margin and inside the volume.
    """
    if found is None:
        found = singularities_in_layers(volume, truth.layers_nm)
    r_cn, t_cn, covered = magnetic_pairs(volume, truth, margin_nm)
    angle_error_deg = angles_deg(r_cn, t_cn)
    half_y_nm, half_x_nm = (n * truth.voxel_nm / 2 - margin_nm for n in truth.m_czyx.shape[2:])
    return {
        "voxels": r_cn.shape[1],
        "not_covered_fraction": 1 - covered,
        "margin_nm": float(margin_nm),
        "scaled_by_true_delta": unit_factor(volume, truth) != 1.0,
        "components": {
            name: {
                "correlation": _correlation(r_n, t_n),
                "amplitude_ratio": _ratio(r_n, t_n),
                "rms_error": float(np.sqrt(np.mean((r_n - t_n) ** 2))),
            }
            for name, r_n, t_n in zip(("mx", "my", "mz"), r_cn, t_cn, strict=True)
        },
        "amplitude_ratio": _ratio(r_cn, t_cn),
        "relative_vector_error": float(np.sqrt(np.sum((r_cn - t_cn) ** 2) / np.sum(t_cn**2))),
        "median_angle_error_deg": (
            float(np.median(angle_error_deg)) if angle_error_deg.size else None
        ),
        "undefined_angle_fraction": 1 - angle_error_deg.size / r_cn.shape[1],
        "singularities": match_singularities(
            found,
            [each for each in truth.singularities if each.kind not in ("skyrmion", "hopfion")],
            half_xy_nm=(half_x_nm, half_y_nm),
            within_nm=within_nm,
        ),
        "skyrmions": compare_skyrmions(
            volume, truth.layers_nm, inside_margin(truth, "skyrmion", margin_nm)
        ),
        "hopfions": compare_hopfions(
            volume, truth.layers_nm, inside_margin(truth, "hopfion", margin_nm)
        ),
    }


def inside_margin(truth: Truth, kind: str, margin_nm: float) -> list[TrueSingularity]:
    """The true ones of a kind whose square lies as a whole inside the field, off its margin."""
    half_y_nm, half_x_nm = (n * truth.voxel_nm / 2 - margin_nm for n in truth.m_czyx.shape[2:])
    return [
        each
        for each in truth.singularities
        if each.kind == kind
        and abs(each.x_nm) + each.radius_nm <= half_x_nm
        and abs(each.y_nm) + each.radius_nm <= half_y_nm
    ]


def compare_skyrmions(
    volume: Volume, layers_nm: Sequence[tuple[float, float]], true: Sequence[TrueSingularity]
) -> dict[str, Any]:
    """The planar charge of a volume over the square of each true skyrmion, in its plane.

    Args:
        volume: the three components.
        layers_nm: where it is magnetic.
        true: skyrmions with charge and radius.

    Returns:
        ``{"true": n, "recovered": n, "mean_charge_error": .., "compared": [{"true": {..}, "charge":
        ..}]}``: those whose charge is within 1/2 of the true one are recovered;
        ``mean_charge_error`` is the mean absolute difference. A charge is None where the direction
        is undefined or the square leaves the volume; then it counts in no mean.
    """
    m_czyx = in_layers(volume, layers_nm)
    charges = [_charge_in_square(m_czyx, volume.voxel_nm, each) for each in true]
    errors = [
        abs(charge - each.charge)
        for charge, each in zip(charges, true, strict=True)
        if charge is not None
    ]
    return {
        "true": len(true),
        "recovered": sum(error < 0.5 for error in errors),
        "mean_charge_error": float(np.mean(errors)) if errors else None,
        "compared": [
            {"true": _point(each), "charge": charge}
            for charge, each in zip(charges, true, strict=True)
        ],
    }


def _charge_in_square(
    m_czyx: NDArray[np.float32], voxel_nm: float, point: TrueSingularity
) -> float | None:
    try:
        return topology.planar_charge(
            m_czyx,
            voxel_nm,
            z_nm=point.z_nm,
            x_range_nm=(point.x_nm - point.radius_nm, point.x_nm + point.radius_nm),
            y_range_nm=(point.y_nm - point.radius_nm, point.y_nm + point.radius_nm),
        )
    except ValueError:
        return None


def compare_hopfions(
    volume: Volume, layers_nm: Sequence[tuple[float, float]], true: Sequence[TrueSingularity]
) -> dict[str, Any]:
    """The Hopf index of a volume in the box of each true hopfion, as high as its layer.

    Args:
        volume: the three components.
        layers_nm: where it is magnetic.
        true: hopfions with Hopf index (``charge``) and radius.

    Returns:
        ``{"true": n, "recovered": n, "compared": [{"true": {..}, "hopf_index": .., "reason":
        ..}]}``: those whose index is within 1/2 of the true one are recovered. The index is None
        where it has no meaning, and ``reason`` says why.
    """
    compared: list[dict[str, Any]] = []
    recovered = 0
    for each in true:
        index, reason = None, None
        try:
            index = topology.hopf_index(_box(volume, layers_nm, each))
            recovered += abs(index - each.charge) < 0.5
        except ValueError as refusal:
            reason = str(refusal)
        compared.append({"true": _point(each), "hopf_index": index, "reason": reason})
    return {"true": len(true), "recovered": recovered, "compared": compared}


def _box(
    volume: Volume, layers_nm: Sequence[tuple[float, float]], point: TrueSingularity
) -> NDArray[np.float32]:
    """The field in a box about a point, as high as the layer in which it lies."""
    low_nm, high_nm = next(
        ((low, high) for low, high in layers_nm if low <= point.z_nm <= high),
        (point.z_nm - point.radius_nm, point.z_nm + point.radius_nm),
    )
    ranges_nm = (
        (low_nm, high_nm),
        (point.y_nm - point.radius_nm, point.y_nm + point.radius_nm),
        (point.x_nm - point.radius_nm, point.x_nm + point.radius_nm),
    )
    slices = [slice(None)]
    for n, (low, high) in zip(volume.m_czyx.shape[1:], ranges_nm, strict=True):
        position_nm = (np.arange(n) - (n - 1) / 2) * volume.voxel_nm
        inside = np.flatnonzero((position_nm >= low) & (position_nm <= high))
        slices.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0))
    box: NDArray[np.float32] = np.ascontiguousarray(volume.m_czyx[tuple(slices)])
    return box


def match_singularities(
    found: Sequence[PointCharge],
    true: Sequence[TrueSingularity],
    *,
    half_xy_nm: tuple[float, float] = (np.inf, np.inf),
    within_nm: float = MATCH_WITHIN_NM,
) -> dict[str, Any]:
    """Assign found singularities to true ones so that as many as possible match, and those as
    closely as possible.

    Skyrmions and hopfions are no points, see `compare_skyrmions` and `compare_hopfions`. A pair is
    never farther apart than ``within_nm``, and both have a whole charge (Bloch points),
    or both a broken one (merons: |Q| is nearer to 1/2 than to 1). Signs do not enter the
    assignment: each pair states both charges.

    Args:
        found: singularities found in a volume.
        true: those of the truth.
        half_xy_nm: only what lies inside ``|x|``, ``|y|`` of this size is judged: a singularity at
            the border of what the views see is neither missed nor false, and a pair counts if one
            of its two lies inside.
        within_nm: the farthest match.

    Returns:
        ``{"true": n, "found": n, "within_nm": .., "matched": [{"true": {..}, "found": {..},
        "distance_nm": .., "same_sign": ..}], "missed": [{..}], "false": [{..}]}``; a point is
        ``{"x_nm", "y_nm", "z_nm", "charge"}``, a true one has its ``kind`` too.

    >>> bloch_point = TrueSingularity(0.0, 0.0, 80.0, -1.0, "Bloch point")
    >>> near = TrueSingularity(0.0, 30.0, 40.0, -1.0, "")
    >>> match_singularities([near], [bloch_point])["matched"][0]["distance_nm"]
    50.0
    """
    distance_nm = np.array([[_distance_nm(f, t) for t in true] for f in found])
    distance_nm = distance_nm.reshape(len(found), len(true))
    too_far = within_nm * (1 + min(len(found), len(true)))
    rows, columns = linear_sum_assignment(np.where(distance_nm <= within_nm, distance_nm, too_far))
    pairs = [
        (int(i), int(j))
        for i, j in zip(rows, columns, strict=True)
        if distance_nm[i, j] <= within_nm
    ]

    def judged(point: PointCharge) -> bool:
        return abs(point.x_nm) <= half_xy_nm[0] and abs(point.y_nm) <= half_xy_nm[1]

    matched = [
        {
            "true": _point(true[j]),
            "found": _point(found[i]),
            "distance_nm": float(distance_nm[i, j]),
            "same_sign": bool(found[i].charge * true[j].charge > 0),
        }
        for i, j in sorted(pairs, key=lambda pair: distance_nm[pair])
        if judged(found[i]) or judged(true[j])
    ]
    paired_found, paired_true = {i for i, _ in pairs}, {j for _, j in pairs}
    missed = [_point(t) for j, t in enumerate(true) if j not in paired_true and judged(t)]
    false = [_point(f) for i, f in enumerate(found) if i not in paired_found and judged(f)]
    return {
        "true": len(matched) + len(missed),
        "found": len(matched) + len(false),
        "within_nm": float(within_nm),
        "matched": matched,
        "missed": missed,
        "false": false,
    }


def _distance_nm(a: PointCharge, b: PointCharge) -> float:
    if (abs(a.charge) < 0.75) != (abs(b.charge) < 0.75):
        return float(np.inf)
    return float(np.hypot(np.hypot(a.x_nm - b.x_nm, a.y_nm - b.y_nm), a.z_nm - b.z_nm))


def _point(point: PointCharge) -> dict[str, Any]:
    described: dict[str, Any] = {
        name: float(getattr(point, name)) for name in ("x_nm", "y_nm", "z_nm", "charge")
    }
    if isinstance(point, TrueSingularity):
        described["kind"] = point.kind
    return described


def _inside(n: int, voxel_nm: float, margin_nm: float) -> NDArray[np.bool_]:
    from_centre_nm = np.abs(np.arange(n) - (n - 1) / 2) * voxel_nm
    inside: NDArray[np.bool_] = from_centre_nm <= n * voxel_nm / 2 - margin_nm
    return inside


def _correlation(a_n: NDArray[np.float64], b_n: NDArray[np.float64]) -> float | None:
    a_n, b_n = a_n - a_n.mean(), b_n - b_n.mean()
    scale = np.sqrt(np.sum(a_n**2) * np.sum(b_n**2))
    # A constant component leaves rounding errors of its mean behind, no correlation.
    return float(np.sum(a_n * b_n) / scale) if scale > 1e-12 * a_n.size else None


def _ratio(r: NDArray[np.float64], t: NDArray[np.float64]) -> float | None:
    power = float(np.sum(t**2))
    return float(np.sum(r * t)) / power if power > 0 else None
