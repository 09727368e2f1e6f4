"""What the likelihood of the counts gains over their logarithms, by photons: `python -m benchmarks.likelihood`.

64 x 64 pixels of 10.5 nm, 29 tilts at each of two azimuths, rays of the simulated beamline without blur, three gold
spheres of 40 to 50 nm on the film. Photons are those of a pixel behind the film, of one exposure: one view of one
helicity. Flats have 30 times as many, and stated doses are right, or (`WRONG`) flats have 5 times as many and doses are
wrong by 3 %.

The logarithms get what suits them best: zero counts masked as in `signal.absorbance`, or half a photon in their place,
or 2 x 2 pixels summed before, reconstructed by the method "direct" with layers; the best angle of the three
counts. Beside it stands the least squares fit of the same logarithms (half a photon for zero) by the same projector,
prior and conjugate gradients as the joint fit: what is better than that is the likelihood's doing, not the solver's.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage
from scipy.sparse.linalg import LinearOperator, cg

from benchmarks.tilt_series import PHI_DEG, THETA_DEG, angles_deg, magnetic_zyx, truth_on
from mistral_txm.reconstruction import CountSeries, Grid, TiltSeries, reconstruct
from mistral_txm.reconstruction.frames import Rate
from mistral_txm.reconstruction.layers import covered_layers, support_of
from mistral_txm.reconstruction.likelihood import model_of, reconstruct_counts
from mistral_txm.reconstruction.signal import absorbance, helicity_signals
from mistral_txm.simulated_beamline import materials
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Pose, Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.source import BendingMagnet
from mistral_txm.simulated_beamline.textures import load
from mistral_txm.simulated_beamline.truth import dichroic_layers_nm

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

PIXELS = 64
DEPTHS = {"vortex": 16, "stripes": 24}
PHOTONS = (200.0, 30.0, 8.0, 3.0)
EVERY = 3
FLAT_PHOTONS = 30.0
DOSE_STD = 0.03
"""What the joint fit is told of the doses."""
WRONG = {"dose_std": 0.03, "flat_photons": 5.0}
WRONG_PHOTONS = (30.0, 3.0)


@dataclass(frozen=True)
class Case:
    """Line integrals of a texture, one array [view, v, u] per azimuth, and the truth."""

    name: str
    theta_deg_t: Float64
    absorbed: list[Float64]
    dichroic: list[Float64]
    truth_czyx: Float32
    grid: Grid
    layers_nm: tuple[tuple[float, float], ...]
    delta_per_nm: float

    def errors(self, m_czyx: Float32) -> tuple[float, float]:
        """Correlation with the truth and median angle, deg, over the magnetic voxels."""
        magnetic = magnetic_zyx(self.truth_czyx)
        a, b = m_czyx[:, magnetic], self.truth_czyx[:, magnetic]
        correlation = float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
        return correlation, float(np.nanmedian(angles_deg(m_czyx, self.truth_czyx)))


@dataclass(frozen=True)
class Measurement:
    """Counts, and by how much the light of each exposure was more than stated, (2, views) per series."""

    series: list[CountSeries]
    factor_ht: list[Float64]


def case_of(name: str, pixels: int = PIXELS, every: int = EVERY) -> Case:
    """Line integrals by the simulated beamline."""
    settings = load_settings("real")
    sample = Sample(load(name), 0, settings.fiducials)
    energy_ev, beam = settings.motors.energy.initial, settings.beam
    _, degree = BendingMagnet(settings.ring, beam).accepted(
        energy_ev, beam.nominal_jaw_down_mm, beam.nominal_jaw_up_mm
    )
    power = settings.monochromator.resolving_power
    magnetic = materials.magnetic_at(energy_ev, power)
    grid = Grid((DEPTHS[name], pixels, pixels), PIXEL_NM)
    texture = load(name)
    top_nm = max(high for _, high in dichroic_layers_nm(texture))
    gold = np.array([[-150.0, 120, top_nm, 22], [60, -170, top_nm, 25], [180, 90, -top_nm, 20]])
    gold[:, 2] += np.sign(gold[:, 2]) * gold[:, 3]
    theta_deg = THETA_DEG[(len(THETA_DEG) % every) // 2 :: every]
    absorbed, dichroic = [], []
    for phi in PHI_DEG:
        views = [
            sample.view(Pose(float(theta), phi), (pixels, pixels), magnetic, gold)
            for theta in theta_deg
        ]
        absorbed.append(
            np.stack(
                [
                    np.zeros((pixels, pixels))
                    + sum(
                        materials.absorption_per_nm(material, energy_ev, power) * path
                        for material, path in view.path_nm.items()
                    )
                    for view in views
                ]
            )
        )
        dichroic.append(
            np.stack(
                [
                    np.zeros((pixels, pixels))
                    + sum(
                        degree * materials.dichroism_per_nm(material, energy_ev, power) * image
                        for material, image in view.dichroic_nm.items()
                    )
                    for view in views
                ]
            )
        )
    material = next(each.material for each in texture.layers if each.material in magnetic)
    return Case(
        name, theta_deg, absorbed, dichroic, truth_on(grid, name), grid,
        tuple((float(a), float(b)) for a, b in dichroic_layers_nm(texture)),
        degree * materials.dichroism_per_nm(material, energy_ev, power),
    )  # fmt: skip


def count(
    case: Case, photons: float, *, flat_photons: float = FLAT_PHOTONS, dose_std: float = 0.0, seed: int = 1
) -> Measurement:  # fmt: skip
    """Draw the counts.

    Args:
        case: what is measured.
        photons: mean of a pixel behind the film, per exposure.
        flat_photons: of the flats' pixels, in units of that.
        dose_std: relative standard deviation of the true dose about the stated one.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    series, factors = [], []
    for phi, absorbed, dichroic in zip(PHI_DEG, case.absorbed, case.dichroic, strict=True):
        open_beam = photons / float(np.exp(-absorbed).mean())
        shape = absorbed.shape[1:]
        # what condenser and detector leave of structure
        flat = 1 + 0.1 * np.sin(np.arange(shape[0]) / 9)[:, None] + rng.normal(0, 0.01, shape)
        flats = []
        for _ in range(2):
            counted = rng.poisson(flat_photons * photons * flat)
            dose = flat_photons * photons / open_beam
            flats.append(Rate(counted / dose, np.maximum(counted, 1) / dose**2))
        factor = np.exp(rng.normal(0, dose_std, (2, len(absorbed))))
        mean = np.stack([np.exp(-absorbed - h * dichroic) for h in (1, -1)])
        mean *= open_beam * flat * factor[:, :, None, None]
        series.append(
            CountSeries(
                phi,
                case.theta_deg_t,
                rng.poisson(mean),
                np.ones(factor.shape),
                (flats[0], flats[1]),
            )
        )
        factors.append(factor)
    return Measurement(series, factors)


def log_difference(
    measured: Measurement, *, least: float = 0.0, summed: int = 1
) -> list[TiltSeries]:
    """Half the difference of the logarithms, as the processing of frames takes it.

    Args:
        measured: the counts.
        least: what stands for fewer photons than that; with 0 a pixel without any is masked.
        summed: so many pixels are summed in both directions.
    """

    def blocks(image: Float64) -> Float64:
        rows, columns = image.shape
        parts = image.reshape(rows // summed, summed, columns // summed, summed)
        return np.asarray(parts.sum(axis=(1, 3)), dtype=np.float64)

    found = []
    for one in measured.series:
        photons = np.asarray(one.photons_htvu, dtype=np.float64)
        flats = [Rate(blocks(flat.rate_vu), blocks(flat.var_vu)) for flat in one.flats]
        signals = []
        for pair in photons.swapaxes(0, 1):
            rates = [np.maximum(blocks(image), least) for image in pair]
            absorbances = [
                absorbance(Rate(rate, rate), flat) for rate, flat in zip(rates, flats, strict=True)
            ]
            signals.append(helicity_signals(absorbances[0], absorbances[1]))
        found.append(
            TiltSeries(
                one.phi_deg, one.theta_deg_t,
                np.stack([signal.dichroic_vu for signal in signals]),
                np.stack([signal.std_vu for signal in signals]),
            )
        )  # fmt: skip
    return found


def best_by_logarithms(case: Case, measured: Measurement) -> tuple[str, Float32]:
    """Log-difference and the method "direct", at its best setting of three: which, and the magnetization."""
    options = {"layers_nm": case.layers_nm, "prior": "layers"}
    found: dict[str, Float32] = {}
    for what, least in (("masked", 0.0), ("half a photon", 0.5)):
        result = reconstruct(log_difference(measured, least=least), case.grid, **options)
        found[what] = result.m_czyx / np.float32(case.delta_per_nm)
    coarse = Grid(tuple(n // 2 for n in case.grid.shape_zyx), 2 * case.grid.voxel_nm)
    binned = reconstruct(log_difference(measured, least=0.5, summed=2), coarse, **options).m_czyx
    binned = np.repeat(binned, 2, axis=1)
    binned = scipy.ndimage.zoom(binned, (1, 1, 2, 2), order=1, mode="nearest", grid_mode=True)
    found["2 x 2 summed"] = binned / np.float32(case.delta_per_nm)
    best = min(found, key=lambda what: case.errors(found[what])[1])
    return best, found[best]


def same_solver_by_logarithms(case: Case, measured: Measurement) -> Float32:
    """Log-difference by least squares with the joint fit's own projector and prior."""
    support, kept = support_of(case.grid, covered_layers(case.grid, "layers", case.layers_nm))
    model, domain = model_of(measured.series, case.grid, support, DOSE_STD)
    series = log_difference(measured, least=0.5)
    signal = np.concatenate([np.asarray(one.dichroic_tvu) for one in series])
    weight = np.concatenate([1 / np.asarray(one.std_tvu) ** 2 for one in series])
    # one weight per view: weights from the counts themselves prefer what is many by chance
    weight = np.mean(weight, axis=(1, 2), keepdims=True) * model.rays.seen_hvij[0]
    shape = model.rays.vector.field_shape(domain.shape_yx)
    none = np.zeros((1, len(case.grid.z_nm), *domain.shape_yx), np.float32)

    def back(values: Float64) -> Float64:
        both = np.stack([values, np.zeros_like(values)]).astype(np.float32)
        return model.signal_root.apply(model.rays.adjoint(both)[1]).ravel().astype(np.float64)

    def normal(white: Float64) -> Float64:
        field = model.signal_root.apply(white.reshape(shape).astype(np.float32))
        return back(weight * model.rays.forward(none, field)[0]) + np.ravel(white)

    size = int(np.prod(shape))
    operator = LinearOperator((size, size), matvec=normal, dtype=np.float64)
    white, _ = cg(operator, back(weight * signal), rtol=3e-4, maxiter=400)
    field = model.signal_root.apply(white.reshape(shape).astype(np.float32))
    m = np.zeros((3, *case.grid.shape_zyx), np.float32)
    m[:, kept] = domain.crop(field, case.grid) / np.float32(case.delta_per_nm)
    return m


def by_likelihood(case: Case, measured: Measurement) -> Float32:
    """The joint fit."""
    result = reconstruct_counts(
        measured.series, case.grid, dose_std=DOSE_STD, layers_nm=case.layers_nm,
        delta_per_nm=case.delta_per_nm,
    )  # fmt: skip
    return result.m_czyx


def line(case: Case, measured: Measurement) -> str:
    """Angle and correlation of the three ways."""
    setting, best = best_by_logarithms(case, measured)
    fields = (best, same_solver_by_logarithms(case, measured), by_likelihood(case, measured))
    return " | ".join(
        [*(f"{angle:.1f}, {r:.3f}" for r, angle in map(case.errors, fields)), setting]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--textures", nargs="+", default=list(DEPTHS))
    options = parser.parse_args()
    print("median angle, deg, and correlation with the truth")
    print(
        "texture | photons | log-difference | same solver | likelihood | best setting of the first"
    )
    for name in options.textures:
        case = case_of(name)
        for photons in PHOTONS:
            print(f"{name} | {photons:g} | {line(case, count(case, photons))}", flush=True)
        for photons in WRONG_PHOTONS:
            wrong = line(case, count(case, photons, **WRONG))
            print(f"{name}, doses wrong, poor flats | {photons:g} | {wrong}", flush=True)


if __name__ == "__main__":
    main()
