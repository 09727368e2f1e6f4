"""The truth behind the frames: `truth.h5`, with the field on voxels and every singularity."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from numba import njit
from numpy.typing import NDArray

from mistral_txm.simulated_beamline import source
from mistral_txm.simulated_beamline.beamline import NOMINAL_JAWS_MM
from mistral_txm.simulated_beamline.materials import DICHROIC, REFERENCE_EV, dichroism_per_nm
from mistral_txm.simulated_beamline.sample import FIDUCIAL_RADIUS_NM, PIXEL_NM, Sample
from mistral_txm.simulated_beamline.solid_angle import cube_charge, square_charge
from mistral_txm.simulated_beamline.textures import Field, Singularity, Texture

DEPTH_VOXELS = 24
"""Height of the volume: 252 nm, more than any of the films."""
CHARGE_STEP_NM = 1.0
"""Side of the triangles that charges are summed over."""


@cache
def _evaluator(field: Field) -> Callable[[NDArray[np.float32], NDArray[np.float32]], None]:
    @njit(nogil=True)  # type: ignore[untyped-decorator]  # numba is untyped
    def evaluate(points: NDArray[np.float32], result: NDArray[np.float32]) -> None:
        for index in range(points.shape[0]):
            m_x, m_y, m_z, density = field(points[index, 0], points[index, 1], points[index, 2])
            result[index, 0] = m_x
            result[index, 1] = m_y
            result[index, 2] = m_z
            result[index, 3] = density

    function: Callable[[NDArray[np.float32], NDArray[np.float32]], None] = evaluate
    return function


def field_at(texture: Texture, points_nm: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (mx, my, mz, density) of a texture's field at points (..., 3); shape (..., 4)."""
    flat = np.ascontiguousarray(points_nm, dtype=np.float32).reshape(-1, 3)
    result = np.empty((len(flat), 4), np.float32)
    _evaluator(texture.field)(flat, result)
    return result.reshape(*points_nm.shape[:-1], 4)


def charge(texture: Texture, singularity: Singularity) -> float:
    """Return the topological charge of one singularity, by solid angles on the analytic field.

    Of a Bloch point: the flux through a cube about it, an integer. Of a meron: the part of the
    sphere that the directions in a square about it cover, counted with its sign.
    """

    def directions(points_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        return field_at(texture, points_nm)[..., :3].astype(np.float64)

    centre = np.array([singularity.x_nm, singularity.y_nm, singularity.z_nm])
    half = singularity.radius_nm
    cells = int(np.ceil(2 * half / CHARGE_STEP_NM))
    if singularity.kind == "Bloch point":
        return cube_charge(directions, centre, half, cells)
    first, second = np.array([half, 0.0, 0.0]), np.array([0.0, half, 0.0])
    return square_charge(directions, centre, first, second, cells)


def dichroic_layers_nm(texture: Texture) -> NDArray[np.float64]:
    """Return (n, 2): lower and upper surface of each layer that is magnetic at the edge used."""
    return np.array(
        [[each.low_nm, each.high_nm] for each in texture.layers if each.material == DICHROIC]
    )


def write_truth(path: Path, sample: Sample, pixels: int, seed: int) -> None:
    """Write the truth of a sample on a grid of `DEPTH_VOXELS` x pixels x pixels voxels.

    mx, my, mz are float32 [z, y, x], the field in the middle of each voxel times the density there,
    0 outside the magnetic layers. `delta_per_nm` is that of the light which the nominal jaws let
    through at the published energy. The file appears under its name when it is complete.
    """
    _intensity, degree = source.accepted(REFERENCE_EV, *NOMINAL_JAWS_MM)
    texture = sample.texture
    axis_nm = (np.arange(pixels) - (pixels - 1) / 2) * PIXEL_NM
    heights_nm = (np.arange(DEPTH_VOXELS) - (DEPTH_VOXELS - 1) / 2) * PIXEL_NM
    layers_nm = dichroic_layers_nm(texture)
    charges = np.array([charge(texture, each) for each in texture.singularities])
    partial = path.with_name(f"{path.name}.partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update(
            voxel_nm=PIXEL_NM,
            delta_per_nm=dichroism_per_nm(REFERENCE_EV) * degree,
            seed=seed,
            texture=texture.name,
            layers_nm=layers_nm,
        )
        volumes = [
            file.create_dataset(
                name,
                shape=(DEPTH_VOXELS, pixels, pixels),
                chunks=(1, pixels, pixels),
                dtype="<f4",
                fillvalue=0.0,
            )
            for name in ("mx", "my", "mz")
        ]
        points_nm = np.empty((pixels, pixels, 3))
        points_nm[..., 0] = axis_nm[None, :]
        points_nm[..., 1] = axis_nm[:, None]
        for index, height_nm in enumerate(heights_nm):
            if not np.any((layers_nm[:, 0] <= height_nm) & (height_nm < layers_nm[:, 1])):
                continue
            points_nm[..., 2] = height_nm
            values = field_at(texture, points_nm)
            for component, volume in enumerate(volumes):
                volume[index] = values[..., component] * values[..., 3]
        group = file.create_group("singularities")
        for name in ("x_nm", "y_nm", "z_nm"):
            group[name] = np.array([getattr(each, name) for each in texture.singularities], "<f8")
        group["charge"] = charges
        group.create_dataset(
            "kind", data=[each.kind for each in texture.singularities], dtype=h5py.string_dtype()
        )
        fiducials = file.create_group("fiducials")
        for component, name in enumerate(("x_nm", "y_nm", "z_nm")):
            fiducials[name] = sample.fiducials_nm[:, component]
        fiducials.attrs["radius_nm"] = FIDUCIAL_RADIUS_NM
    partial.replace(path)
