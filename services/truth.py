"""The truth that the simulated beamline writes beside its data, and what of a volume compares with it.

How far the volume is from it: module `truth_comparison`.

Lengths in nm from the centre of the volume; vector fields are ``[component, z, y, x]``. Voxel ``i``
of ``n`` sits at ``(i - (n - 1) / 2) * voxel_nm``, so volumes of different size and voxel share
their centre.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

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
