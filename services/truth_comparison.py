"""How far a volume is from the truth: its field over the magnetic voxels, and its singularities one by one.

Lengths in nm from the centre of the volume; vector fields are ``[component, z, y, x]`` (module `truth`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from mistral_txm.reconstruction import topology
from mistral_txm.reconstruction.volume_file import Volume
from mistral_txm.services.truth import (
    MATCH_WITHIN_NM,
    PointCharge,
    TrueSingularity,
    Truth,
    in_layers,
    resample,
    singularities_in_layers,
    unit_factor,
)


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
