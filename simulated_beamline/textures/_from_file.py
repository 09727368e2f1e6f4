"""A texture from an HDF5 file of the user's: mx, my, mz [z, y, x] and the attribute `voxel_nm`.

|m| is the part of a voxel that is filled with magnetic material, sharp at the voxel's faces; the
direction is that of m, interpolated linearly between the voxels' centres. There is nothing beside
the volume. Its middle is the middle of the sample. The slices with something in them are layers of
permalloy, on a membrane of Si3N4; where its singularities are, nobody says.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numba import njit
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.textures import Grid, Layer, Texture

MATERIAL = "Ni80Fe20"
MEMBRANE_NM = 50.0
LARGEST_NORM = 1.001
"""A norm of one, and what single precision makes of it."""

_ONE = np.float32(1)
_SMALL = np.float32(1e-30)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def _place(position: Any, per_voxel: Any, size: Any) -> tuple[Any, Any, Any]:
    """Return, along one axis of `size` padded voxels, the nearest one, the one below, and how far
    above that one's centre the position is, in voxels."""
    index = position * per_voxel + np.float32(0.5 * (size - 1))
    index = min(max(index, np.float32(0)), np.float32(size - 1.01))
    nearest = np.int32(index + np.float32(0.5))
    below = np.int32(index)
    return nearest, below, index - np.float32(below)


@njit(inline="always")  # type: ignore[untyped-decorator]  # numba is untyped
def field(x: Any, y: Any, z: Any, values: Any, voxel_nm: Any) -> tuple[Any, Any, Any, Any]:
    """Return (mx, my, mz, density) at a point in nm; `values` are padded by one voxel all around."""
    per_voxel = np.float32(1 / voxel_nm)
    near_i, i, up_i = _place(x, per_voxel, values.shape[2])
    near_j, j, up_j = _place(y, per_voxel, values.shape[1])
    near_k, k, up_k = _place(z, per_voxel, values.shape[0])
    density = values[near_k, near_j, near_i, 3]
    m_x, m_y, m_z = np.float32(0), np.float32(0), np.float32(1)
    if density > 0:
        m_x = m_y = m_z = np.float32(0)
        for step_k in range(2):
            weight_k = up_k if step_k else _ONE - up_k
            for step_j in range(2):
                weight_kj = weight_k * (up_j if step_j else _ONE - up_j)
                for step_i in range(2):
                    weight = weight_kj * (up_i if step_i else _ONE - up_i)
                    m_x += weight * values[k + step_k, j + step_j, i + step_i, 0]
                    m_y += weight * values[k + step_k, j + step_j, i + step_i, 1]
                    m_z += weight * values[k + step_k, j + step_j, i + step_i, 2]
        norm = _ONE / np.sqrt(m_x * m_x + m_y * m_y + m_z * m_z + _SMALL)
        m_x, m_y, m_z = m_x * norm, m_y * norm, m_z * norm
    return m_x, m_y, m_z, density


def read_texture(path: Path) -> Texture:
    """Read a texture from a file.

    Raises ValueError, in one line, for a file that cannot be read, lacks a dataset or `voxel_nm`,
    or whose numbers cannot be a field.
    """
    try:
        with h5py.File(path) as file:
            volumes = [_volume(file, name) for name in ("mx", "my", "mz")]
            voxel_nm = _voxel_nm(file)
    except (OSError, ValueError) as refusal:
        reason = "cannot be read as HDF5" if isinstance(refusal, OSError) else str(refusal)
        raise ValueError(f"texture {path}: {reason}") from refusal
    shapes = {volume.shape for volume in volumes}
    if len(shapes) > 1:
        named = ", ".join(
            f"{name} {volume.shape}"
            for name, volume in zip(("mx", "my", "mz"), volumes, strict=True)
        )
        raise ValueError(f"texture {path}: {named}: expected three of one shape")
    values = _padded(volumes)
    norm = values[1:-1, 1:-1, 1:-1, 3]
    if not norm.any():
        raise ValueError(f"texture {path}: m is zero everywhere: expected a field")
    if norm.max() > LARGEST_NORM:
        raise ValueError(
            f"texture {path}: |m| reaches {norm.max():.4g}: expected at most 1, the part of a voxel "
            "that is magnetic; divide by the saturation magnetization"
        )
    return Texture(
        name=path.stem,
        layers=_layers(np.any(norm > 0, axis=(1, 2)), voxel_nm),
        field=field,
        singularities=(),
        continuous=False,
        step_nm=max(voxel_nm / 2, 5.0),
        grid=Grid(values, voxel_nm),
    )


def _padded(volumes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return mx, my, mz, |m| [z, y, x, 4] in one voxel more all around: as beside it, but empty."""
    depth, height, width = volumes[0].shape
    values = np.zeros((depth + 2, height + 2, width + 2, 4), dtype=np.float32)
    for component, volume in enumerate(volumes):
        values[1:-1, 1:-1, 1:-1, component] = volume
    for axis in range(3):
        along = np.moveaxis(values, axis, 0)
        along[0], along[-1] = along[1], along[-2]
    inner = values[1:-1, 1:-1, 1:-1]
    inner[..., 3] = np.sqrt(np.einsum("zyxc,zyxc->zyx", inner[..., :3], inner[..., :3]))
    return values


def _volume(file: h5py.File, name: str) -> NDArray[np.float32]:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"no dataset {name}: expected mx, my and mz, each [z, y, x]")
    if dataset.ndim != 3 or dataset.size == 0 or dataset.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} is {dataset.dtype} of shape {dataset.shape}: expected numbers [z, y, x]"
        )
    volume: NDArray[np.float32] = dataset.astype(np.float32)[...]
    if not np.isfinite(volume).all():
        raise ValueError(
            f"{name} holds {np.count_nonzero(~np.isfinite(volume))} values that are not finite: "
            "expected 0 where nothing is magnetic"
        )
    return volume


def _voxel_nm(file: h5py.File) -> float:
    if "voxel_nm" not in file.attrs:
        raise ValueError("no attribute voxel_nm: expected the edge of a voxel in nm")
    value = np.asarray(file.attrs["voxel_nm"])
    if value.size != 1 or value.dtype.kind not in "fiu" or not 0 < value.item() < np.inf:
        raise ValueError(f"voxel_nm is {value}: expected one number above 0, in nm")
    return float(value.item())


def _layers(filled: NDArray[np.bool_], voxel_nm: float) -> tuple[Layer, ...]:
    """Return a layer for each run of slices with something in them, and the membrane below."""
    steps = np.diff(np.concatenate([[0], filled.astype(np.int8), [0]]))
    edges_nm = (np.arange(len(steps)) - len(filled) / 2) * voxel_nm
    lows_nm, highs_nm = edges_nm[steps == 1], edges_nm[steps == -1]
    membrane = Layer(float(lows_nm[0]) - MEMBRANE_NM, float(lows_nm[0]), "Si3N4")
    return (
        membrane,
        *(
            Layer(float(low), float(high), MATERIAL)
            for low, high in zip(lows_nm, highs_nm, strict=True)
        ),
    )
