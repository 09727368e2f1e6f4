"""Tilt series of a texture with the noise of a real dose, from the simulated beamline's own rays and optics.

Tilts, exposures and azimuths are those of the publication and of the beamline's script of 2018 (`EXPOSURES`): at each
of 87 tilts 15 x 8 s up to 24 deg, 20 x 12 s up to 44 deg, 25 x 20 s beyond; flats 50 x 3 s per helicity and azimuth.
Light, sample, zone plate and camera are those of the simulated beamline under "real" conditions: 50 photons per
second and pixel in the open beam (400 in 8 s, nearly a full well), a circular degree of 0.8, the absorption of all
layers, focus on the tilted film. Exposures of one view are summed: the sum of Poisson numbers is one. What the
processing and the alignment have to undo (run-out, drift, hot pixels, zingers, gold) is left out, it is measured
elsewhere; the noise of the flats, the same in all views of a series, is in.

The rays are those of `simulated_beamline.sample`: the analytic field, 2 x 2 per pixel, at most 5 nm along the normal.
They share no code with the projector that inverts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_txm.reconstruction import Grid, TiltSeries
from mistral_txm.simulated_beamline import materials
from mistral_txm.simulated_beamline.optics import PADDING, ZonePlate
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Pose, Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.source import BendingMagnet
from mistral_txm.simulated_beamline.textures import load
from mistral_txm.simulated_beamline.truth import dichroic_layers_nm, field_at

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

THETA_DEG: Float64 = np.r_[np.arange(-55, -23), np.arange(-22, 23, 2), np.arange(24, 56)].astype(
    float
)
"""The publication's 87 tilts."""
PHI_DEG = (0.0, 102.0)
EXPOSURES = ((24.5, 15, 8.0), (44.5, 20, 12.0), (90.0, 25, 20.0))
"""(up to this tilt in deg, repeats, seconds each), of the script of 2018."""
FLATS = (50, 3.0)
FIDUCIAL_FREE = np.empty((0, 4))


def magnetic_zyx(truth_czyx: Float32) -> Bool:
    """Where the truth is magnetic."""
    return np.asarray(np.linalg.norm(truth_czyx, axis=0) > 0.5)


def angles_deg(m_czyx: Float32, truth_czyx: Float32) -> Float32:
    """Angle to the truth, deg, [z, y, x]; NaN where nothing is magnetic."""
    length = np.linalg.norm(m_czyx, axis=0) * np.linalg.norm(truth_czyx, axis=0)
    dot = np.einsum("czyx,czyx->zyx", m_czyx, truth_czyx)
    cosine = np.where(length > 0, dot / np.where(length > 0, length, 1), 0)
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return np.where(magnetic_zyx(truth_czyx), angle, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Measured:
    """Series of a texture and the truth at the voxels' centres.

    halves: the same measurement in two parts, each with half of the exposures and of the flats.
    """

    name: str
    series: list[TiltSeries]
    halves: tuple[list[TiltSeries], list[TiltSeries]]
    truth_czyx: Float32
    grid: Grid
    layers_nm: tuple[tuple[float, float], ...]
    delta_per_nm: float
    signal_std: float
    noise_std: float

    def errors(self, m_czyx: Float32) -> tuple[float, float]:
        """Relative vector error and median angle, deg, over all magnetic voxels."""
        magnetic = magnetic_zyx(self.truth_czyx)
        a, b = m_czyx[:, magnetic], self.truth_czyx[:, magnetic]
        error = float(np.linalg.norm(a - b) / np.linalg.norm(b))
        return error, float(np.nanmedian(angles_deg(m_czyx, self.truth_czyx)))


def truth_on(grid: Grid, name: str) -> Float32:
    """The texture's field at the centres of the voxels, 0 outside the dichroic layers; float32 [3, z, y, x]."""
    texture = load(name)
    truth = np.zeros((3, *grid.shape_zyx), np.float32)
    points = np.empty((*grid.shape_zyx[1:], 3))
    points[..., 0], points[..., 1] = grid.x_nm[None, :], grid.y_nm[:, None]
    for k, z_nm in enumerate(grid.z_nm):
        if any(low <= z_nm < high for low, high in dichroic_layers_nm(texture)):
            points[..., 2] = z_nm
            values = field_at(texture, points)
            truth[:, k] = np.moveaxis(values[..., :3] * values[..., 3:], -1, 0)
    return truth


def measure(
    name: str,
    pixels: int = 128,
    depth: int = 24,
    *,
    every: int = 1,
    phi_deg: Sequence[float] = PHI_DEG,
    dose: float = 1.0,
    blurred: bool = True,
    seed: int = 1,
) -> Measured:
    """Measure a texture.

    Args:
        name: of the texture.
        pixels: of a view, in both directions.
        depth: layers of the volume.
        every: take each so many'th tilt, with so many times the exposures: the dose stays what it is.
        phi_deg: azimuths.
        dose: factor on all exposures.
        blurred: whether the zone plate blurs.
        seed: of the noise.
    """
    settings = load_settings("real")
    sample = Sample(load(name), 0, settings.fiducials)
    energy_ev = settings.motors.energy.initial
    beam, camera = settings.beam, settings.camera
    _, degree = BendingMagnet(settings.ring, beam).accepted(
        energy_ev, beam.nominal_jaw_down_mm, beam.nominal_jaw_up_mm
    )
    power = settings.monochromator.resolving_power
    magnetic = materials.magnetic_at(energy_ev, power)
    zone_plate = ZonePlate(settings.zone_plate)
    read_photons = camera.read_noise_electrons * camera.electron_hole_pair_ev / energy_ev
    rng = np.random.default_rng(seed)
    theta_deg = THETA_DEG[(len(THETA_DEG) % every) // 2 :: every]

    def counted(mean_vu: Float32 | Float64 | float, frames: float) -> Float64:
        mean = np.broadcast_to(mean_vu, (pixels, pixels))
        return rng.poisson(mean) + rng.normal(0, read_photons * np.sqrt(frames), mean.shape)

    all_series: list[list[TiltSeries]] = [[], [], []]
    signal_power, noise_power = [], []
    for phi in phi_deg:
        # either half of the repeats has flats of its own: shared ones would make the noise of the halves agree
        flat_mean = FLATS[0] * FLATS[1] * beam.photons_per_s * dose / 2
        flats = [[counted(flat_mean, FLATS[0] / 2) / flat_mean for _ in range(2)] for _ in range(2)]
        images: list[list[Float32]] = [[], [], []]
        stds: list[list[float]] = [[], [], []]
        for theta in theta_deg:
            _, repeats, seconds = next(e for e in EXPOSURES if abs(theta) < e[0])
            frames = repeats * every * dose
            size = pixels + 2 * PADDING
            view = sample.view(Pose(float(theta), phi), (size, size), magnetic, FIDUCIAL_FREE)
            absorbed = sum(
                materials.absorption_per_nm(material, energy_ev, power) * path
                for material, path in view.path_nm.items()
            )
            dichroic = sum(
                degree * materials.dichroism_per_nm(material, energy_ev, power) * image
                for material, image in view.dichroic_nm.items()
            )
            assert isinstance(dichroic, np.ndarray)
            signal_power.append(float(np.var(dichroic)))
            halves = []
            for sign, helicity_flats in zip((1, -1), flats, strict=True):
                through = np.exp(-(absorbed + sign * dichroic)).astype(np.float32)
                if blurred:
                    through = zone_plate.image(through, PIXEL_NM, 0.0, float(theta), energy_ev)
                else:
                    through = through[PADDING:-PADDING, PADDING:-PADDING]
                mean = through * np.float32(beam.photons_per_s * seconds * frames / 2)
                halves.append([(counted(mean, frames / 2), mean, flat) for flat in helicity_flats])
            for part, chosen in enumerate(((0, 1), (0,), (1,))):
                absorbance, variance = [], 0.0
                for helicity in halves:
                    counts = sum(helicity[i][0] for i in chosen)
                    expected = sum(float(helicity[i][1].mean()) for i in chosen)
                    flat = np.mean([helicity[i][2] for i in chosen], axis=0)
                    full = beam.photons_per_s * seconds * frames * len(chosen) / 2
                    absorbance.append(-np.log(np.maximum(counts, 0.5) / full / flat))
                    variance += 1 / expected + 1 / (flat_mean * len(chosen))
                images[part].append(((absorbance[0] - absorbance[1]) / 2).astype(np.float32))
                stds[part].append(float(np.sqrt(variance) / 2))
        noise_power.append(np.mean(np.square(stds[0])))
        for part in range(3):
            all_series[part].append(
                TiltSeries(phi, theta_deg, np.stack(images[part]), np.array(stds[part]))
            )
    grid = Grid((depth, pixels, pixels), PIXEL_NM)
    texture = load(name)
    layers = tuple((float(a), float(b)) for a, b in dichroic_layers_nm(texture))
    material = next(each.material for each in texture.layers if each.material in magnetic)
    return Measured(
        name,
        all_series[0],
        (all_series[1], all_series[2]),
        truth_on(grid, name),
        grid,
        layers,
        degree * materials.dichroism_per_nm(material, energy_ev, power),
        float(np.sqrt(np.mean(signal_power))),
        float(np.sqrt(np.mean(noise_power))),
    )
