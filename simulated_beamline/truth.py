"""The truth behind the frames: `truth.h5`, with the field on voxels and every singularity."""

from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline import materials
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Sample
from mistral_txm.simulated_beamline.settings import Settings
from mistral_txm.simulated_beamline.solid_angle import cube_charge, hopf_index, square_charge
from mistral_txm.simulated_beamline.source import BendingMagnet
from mistral_txm.simulated_beamline.textures import (
    Grid,
    Layer,
    Singularity,
    Texture,
)
from mistral_txm.simulated_beamline.textures._compiled import compiled, field_of_texture

LEAST_DEPTH_VOXELS = 24
"""Height of the volume for films: 252 nm."""
LARGEST_VOLUME = 26_000_000
"""Voxels; of a sample that is so thick that there would be more, they are larger."""
CHARGE_STEP_NM = 1.0
"""Side of the triangles that the charges of Bloch points and merons are summed over."""
SKYRMION_CELLS = 24
"""A skyrmion's square is cut into so many along each side: its charge is an integer anyway."""
HOPF_CELLS = (48, 64, 64)
"""Along z, y and x of a hopfion's box."""

Volume = NDArray[np.float32]


def _evaluate(points: Volume, values: Volume, voxel_nm: float, result: Volume) -> None:
    for index in range(points.shape[0]):
        m_x, m_y, m_z, density = field_of_texture(
            points[index, 0], points[index, 1], points[index, 2], values, voxel_nm
        )
        result[index, 0] = m_x
        result[index, 1] = m_y
        result[index, 2] = m_z
        result[index, 3] = density


def field_at(texture: Texture, points_nm: NDArray[np.float64]) -> Volume:
    """Return (mx, my, mz, density) of a texture's field at points (..., 3); shape (..., 4)."""
    flat = np.ascontiguousarray(points_nm, dtype=np.float32).reshape(-1, 3)
    result = np.empty((len(flat), 4), np.float32)
    grid = texture.grid or Grid()
    compiled(_evaluate, texture, nogil=True)(flat, grid.values, grid.voxel_nm, result)
    return result.reshape(*points_nm.shape[:-1], 4)


def charge(texture: Texture, singularity: Singularity) -> float:
    """Return the topological charge of one singularity, by solid angles on the analytic field.

    Of a Bloch point: the flux through a cube about it, an integer. Of a meron or skyrmion: the part
    of the sphere that the directions in a square about it cover, counted with its sign. Of a
    hopfion: the Hopf index of a box as high as its layer.
    """

    def directions(points_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        return field_at(texture, points_nm)[..., :3].astype(np.float64)

    centre = np.array([singularity.x_nm, singularity.y_nm, singularity.z_nm])
    half = singularity.radius_nm
    cells = int(np.ceil(2 * half / CHARGE_STEP_NM))
    if singularity.kind == "Bloch point":
        return cube_charge(directions, centre, half, cells)
    if singularity.kind == "hopfion":
        (layer,) = (
            each for each in texture.layers if each.low_nm < singularity.z_nm < each.high_nm
        )
        low = np.array([layer.low_nm, centre[1] - half, centre[0] - half])
        high = np.array([layer.high_nm, centre[1] + half, centre[0] + half])
        return hopf_index(directions, low, high, HOPF_CELLS)
    if singularity.kind == "skyrmion":
        cells = SKYRMION_CELLS
    first, second = np.array([half, 0.0, 0.0]), np.array([0.0, half, 0.0])
    return square_charge(directions, centre, first, second, cells)


def magnetic_layers(texture: Texture) -> tuple[Layer, ...]:
    """Return the layers in which the texture's field is."""
    return tuple(each for each in texture.layers if each.material in materials.MAGNETIC)


def dichroic_layers_nm(
    texture: Texture, energy_ev: float = materials.REFERENCE_EV, resolving_power: float = 2000.0
) -> NDArray[np.float64]:
    """Return (n, 2): lower and upper surface of each layer that is magnetic to light of an energy."""
    magnetic = materials.magnetic_at(energy_ev, resolving_power)
    layers = [[each.low_nm, each.high_nm] for each in texture.layers if each.material in magnetic]
    return np.array(layers, dtype=np.float64).reshape(-1, 2)


def volume_grid(texture: Texture, pixels: int) -> tuple[tuple[int, int, int], float]:
    """Return the voxels [z, y, x] of the truth and their edge in nm, a multiple of the pixel.

    The volume is as wide as the frame, and holds all magnetic layers.

    >>> from mistral_txm.simulated_beamline.textures import load
    >>> volume_grid(load("stripes"), 256)
    ((24, 256, 256), 10.5)
    """
    reach_nm = max(max(-each.low_nm, each.high_nm) for each in magnetic_layers(texture))
    multiple = 1
    while True:
        voxel_nm = multiple * PIXEL_NM
        depth = max(-(-LEAST_DEPTH_VOXELS // multiple), 2 * int(np.ceil(reach_nm / voxel_nm)))
        width = max(pixels // multiple, 1)
        if depth * width**2 <= LARGEST_VOLUME:
            return (depth, width, width), voxel_nm
        multiple += 1


def write_truth(path: Path, sample: Sample, pixels: int, seed: int, settings: Settings) -> None:
    """Write the truth of a sample on voxels: as wide as a frame of `pixels` x `pixels`.

    mx, my, mz are float32 [z, y, x], the field in the middle of each voxel times the density there,
    0 outside the layers that are magnetic to light of the energy at which the beamline starts.
    `delta_per_nm` is that of the light of this energy which the nominal jaws let through, in the
    first of these layers. Where other layers are magnetic, too, their field is in the group
    `other_layers`, on the same voxels. `singularities` are those in the volume, with charges;
    `hopf_index` is the sum over the hopfions, where there is one. The file appears under its name
    when it is complete.
    """
    texture = sample.texture
    energy_ev = settings.motors.energy.initial
    resolving_power = settings.monochromator.resolving_power
    beam = settings.beam
    _intensity, degree = BendingMagnet(settings.ring, beam).accepted(
        energy_ev, beam.nominal_jaw_down_mm, beam.nominal_jaw_up_mm
    )
    shape_zyx, voxel_nm = volume_grid(texture, pixels)
    seen = materials.magnetic_at(energy_ev, resolving_power)
    dichroic = [each for each in magnetic_layers(texture) if each.material in seen]
    others = [each for each in magnetic_layers(texture) if each.material not in seen]
    delta_per_nm = {
        each.material: degree
        * materials.dichroism_per_nm(each.material, energy_ev, resolving_power)
        for each in texture.layers
    }
    partial = path.with_name(f"{path.name}.partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update(
            voxel_nm=voxel_nm,
            delta_per_nm=delta_per_nm[dichroic[0].material] if dichroic else 0.0,
            energy_ev=energy_ev,
            seed=seed,
            texture=texture.name,
            layers_nm=dichroic_layers_nm(texture, energy_ev, resolving_power),
        )
        _write_field(file, texture, dichroic, shape_zyx, voxel_nm)
        if others:
            group = file.create_group("other_layers")
            group.attrs["layers_nm"] = np.array([[each.low_nm, each.high_nm] for each in others])
            _write_field(group, texture, others, shape_zyx, voxel_nm)
        _write_layers(file.create_group("layers"), texture.layers, delta_per_nm)
        half_nm = shape_zyx[2] * voxel_nm / 2
        inside = tuple(
            each for each in texture.singularities if max(abs(each.x_nm), abs(each.y_nm)) <= half_nm
        )
        charges = np.array([charge(texture, each) for each in inside], "<f8")
        hopfions = np.array([each.kind == "hopfion" for each in inside], bool)
        if hopfions.any():
            file.attrs["hopf_index"] = float(charges[hopfions].sum())
        _write_singularities(file.create_group("singularities"), inside, charges)
        fiducials = file.create_group("fiducials")
        names = ("x_nm", "y_nm", "z_nm", "radius_nm")
        for name, values in zip(names, sample.spheres().T, strict=True):
            fiducials[name] = values
    partial.replace(path)


def _write_field(
    group: h5py.Group,
    texture: Texture,
    layers: Iterable[Layer],
    shape_zyx: tuple[int, int, int],
    voxel_nm: float,
) -> None:
    volumes = [
        group.create_dataset(
            name, shape=shape_zyx, chunks=(1, *shape_zyx[1:]), dtype="<f4", fillvalue=0.0
        )
        for name in ("mx", "my", "mz")
    ]
    z_nm, y_nm, x_nm = ((np.arange(n) - (n - 1) / 2) * voxel_nm for n in shape_zyx)
    points_nm = np.empty((*shape_zyx[1:], 3))
    points_nm[..., 0] = x_nm[None, :]
    points_nm[..., 1] = y_nm[:, None]
    for index, height_nm in enumerate(z_nm):
        if not any(each.low_nm <= height_nm < each.high_nm for each in layers):
            continue
        points_nm[..., 2] = height_nm
        values = field_at(texture, points_nm)
        for component, volume in enumerate(volumes):
            volume[index] = values[..., component] * values[..., 3]


def _write_layers(
    group: h5py.Group, layers: tuple[Layer, ...], delta_per_nm: dict[str, float]
) -> None:
    group["low_nm"] = np.array([each.low_nm for each in layers], "<f8")
    group["high_nm"] = np.array([each.high_nm for each in layers], "<f8")
    group["delta_per_nm"] = np.array([delta_per_nm[each.material] for each in layers], "<f8")
    names = [each.material for each in layers]
    group.create_dataset("material", data=names, dtype=h5py.string_dtype())


def _write_singularities(
    group: h5py.Group, singularities: tuple[Singularity, ...], charges: NDArray[np.float64]
) -> None:
    for name in ("x_nm", "y_nm", "z_nm", "radius_nm"):
        group[name] = np.array([getattr(each, name) for each in singularities], "<f8")
    group["charge"] = charges
    kinds = [each.kind for each in singularities]
    group.create_dataset("kind", data=kinds, dtype=h5py.string_dtype())
