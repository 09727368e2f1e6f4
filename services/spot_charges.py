"""Charges of what is localised in a layer, slice by slice, with what the noise of the volume makes of them.

As in `reconstruction.topology`: fields ``[component, z, y, x]``, lengths in nm from the middle of the volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from mistral_txm.reconstruction.lattice_charge import plane_angles
from mistral_txm.reconstruction.planar_charges import PlanarCharge
from mistral_txm.reconstruction.singularities import RESOLUTION_NM, prepared

DRAWS = 16
"""Fields with noise added from which the spread of a charge is taken."""


@dataclass(frozen=True)
class ChargeWithDepth:
    """Planar charge of a disc about a spot in each slice of its layer; nan where m is undefined in the disc.

    std: standard deviation from the noise of the volume, its voxels taken as independent; None where no noise is known.
    """

    z_nm: NDArray[np.float64]
    charge_z: NDArray[np.float64]
    std_z: NDArray[np.float64] | None


def charge_with_depth(
    m_czyx: NDArray[np.float32],
    std_zyx: NDArray[np.float32] | None,
    voxel_nm: float,
    spot: PlanarCharge,
    layer: PlanarCharge,
) -> ChargeWithDepth:
    """Return the charge of the disc of a spot in each slice of a layer.

    ``Q = 1/(4 pi)`` times the solid angle that m, at the resolution of the search, covers over the disc. It is the same
    in all slices of a texture that does not change with depth, and jumps by the charge of a Bloch point where there is
    one. The spread is that of `DRAWS` fields to which noise of the stated standard deviation was added.

    Parameters
    ----------
    m_czyx
        The field, 0 outside the magnetic layers.
    std_zyx
        Standard deviation of a component; None: not known.
    voxel_nm
        Voxel edge.
    spot
        Centre and radius of the disc, a meron or skyrmion.
    layer
        The layer, with its lowest and highest slice.

    Raises
    ------
    ValueError
        For a spot without a centre or radius, or a layer without slices.
    """
    x_nm, y_nm, radius_nm = spot.x_nm, spot.y_nm, spot.radius_nm
    low_nm, high_nm = layer.z0_nm, layer.z1_nm
    if x_nm is None or y_nm is None or radius_nm is None or low_nm is None or high_nm is None:
        raise ValueError(f"{spot} in {layer}: expected a spot in a layer")
    _, n_z, n_y, n_x = m_czyx.shape
    reach = round((radius_nm + RESOLUTION_NM) / voxel_nm)
    columns, x = _around(n_x, x_nm / voxel_nm, reach)
    rows, y = _around(n_y, y_nm / voxel_nm, reach)
    z_nm = (np.arange(n_z) - (n_z - 1) / 2) * voxel_nm
    inside = (z_nm >= low_nm - voxel_nm / 4) & (z_nm <= high_nm + voxel_nm / 4)
    block = np.ascontiguousarray(m_czyx[:, inside, rows, columns])
    in_disc = np.hypot(y[:, None], x) <= radius_nm / voxel_nm
    charge_z = _discs(block, voxel_nm, in_disc)
    std_z = None
    if std_zyx is not None:
        noise = np.random.default_rng(0)
        sigma = std_zyx[inside, rows, columns] * np.any(block != 0, axis=0)
        draws = [
            _discs(block + sigma * noise.normal(size=block.shape).astype("f4"), voxel_nm, in_disc)
            for _ in range(DRAWS)
        ]
        std_z = np.std(draws, axis=0, ddof=1)
    return ChargeWithDepth(z_nm[inside], charge_z, std_z)


def _around(n: int, centre: float, reach: int) -> tuple[slice, NDArray[np.float64]]:
    """Return the voxels of an axis within reach of a place, and how far the middles between them are from it."""
    index = centre + (n - 1) / 2
    first, last = max(0, round(index) - reach), min(n, round(index) + reach + 1)
    return slice(first, last), np.arange(first, last - 1, dtype=np.float64) + 0.5 - index


def _discs(
    block: NDArray[np.float32], voxel_nm: float, in_disc: NDArray[np.bool_]
) -> NDArray[np.float64]:
    field = prepared(block, voxel_nm, RESOLUTION_NM, None)
    return np.array(
        [
            plane_angles(np.ascontiguousarray(slice_cyx), np.ascontiguousarray(defined_yx))[
                in_disc
            ].sum()
            for slice_cyx, defined_yx in zip(
                np.moveaxis(field.m_czyx, 1, 0), field.support_zyx, strict=True
            )
        ]
    ) / (4 * np.pi)


@dataclass(frozen=True)
class Core:
    """The core of a skyrmion, where m_z has the sign of its middle: its centroid, and the circle as large as it."""

    x_nm: float
    y_nm: float
    radius_nm: float


def core_of(m_czyx: NDArray[np.float32], voxel_nm: float, spot: PlanarCharge) -> Core | None:
    """Return the core of a skyrmion in its slice; None where it does not end within twice the radius of its disc."""
    if spot.x_nm is None or spot.y_nm is None or spot.radius_nm is None:
        return None
    _, n_z, n_y, n_x = m_czyx.shape
    k = round(spot.z_nm / voxel_nm + (n_z - 1) / 2)
    reach = round(2 * spot.radius_nm / voxel_nm)
    columns, _ = _around(n_x, spot.x_nm / voxel_nm, reach)
    rows, _ = _around(n_y, spot.y_nm / voxel_nm, reach)
    m_z = m_czyx[2, k, rows, columns]
    x_nm = (np.arange(n_x)[columns] - (n_x - 1) / 2) * voxel_nm
    y_nm = (np.arange(n_y)[rows] - (n_y - 1) / 2) * voxel_nm
    middle = int(np.abs(y_nm - spot.y_nm).argmin()), int(np.abs(x_nm - spot.x_nm).argmin())
    labels, _ = ndimage.label(np.sign(m_z[middle]) * m_z > 0)
    core = labels == labels[middle]
    if labels[middle] == 0 or core[[0, -1]].any() or core[:, [0, -1]].any():
        return None
    inside_y, inside_x = np.nonzero(core)
    return Core(
        float(x_nm[inside_x].mean()),
        float(y_nm[inside_y].mean()),
        float(np.sqrt(core.sum() / np.pi) * voxel_nm),
    )


def centred_on_cores(
    m_czyx: NDArray[np.float32], voxel_nm: float, spots: Sequence[PlanarCharge]
) -> list[tuple[PlanarCharge, Core | None]]:
    """Return spots with the skyrmions moved to the middle of their cores, and these cores.

    The charge of a skyrmion is densest on a ring, and a search finds it anywhere on that. Its disc is made no larger
    than half the distance to the nearest one: what is farther out belongs to that.
    """
    cores = [core_of(m_czyx, voxel_nm, spot) if spot.kind == "skyrmion" else None for spot in spots]
    found: list[tuple[PlanarCharge, Core | None]] = []
    for spot, core in zip(spots, cores, strict=True):
        if core is None or spot.radius_nm is None:
            found.append((spot, None))
            continue
        apart_nm = min(
            (
                float(np.hypot(other.x_nm - core.x_nm, other.y_nm - core.y_nm))
                for other, its in zip(cores, spots, strict=True)
                if other is not None and other is not core and its.z_nm == spot.z_nm
            ),
            default=np.inf,
        )
        radius_nm = min(spot.radius_nm, apart_nm / 2)
        found.append((replace(spot, x_nm=core.x_nm, y_nm=core.y_nm, radius_nm=radius_nm), core))
    return found


def nearest_distances_nm(cores: Sequence[Core]) -> NDArray[np.float64]:
    """Return the distance of each core to its nearest neighbour; empty for less than two."""
    if len(cores) < 2:
        return np.empty(0)
    xy_nm = np.array([(core.x_nm, core.y_nm) for core in cores])
    distance_nm, _ = KDTree(xy_nm).query(xy_nm, k=[2])
    return np.asarray(distance_nm, dtype=np.float64)[:, 0]
