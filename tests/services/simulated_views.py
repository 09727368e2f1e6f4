"""Views as the simulated beamline makes them under `real` conditions, developed by Beer and Lambert, and their truth.

Rendered once without noise; every draw of photons then costs little. The dose is the paper's: all exposures of an angle
and helicity as one. Flats are those of ten minutes before: the light has walked by a sixth of a pixel.
"""

from dataclasses import dataclass, replace

import numpy as np

from mistral_txm.reconstruction.fiducials import find_fiducials
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.services.angle_signals import AngleSignals, needed_for_volume, with_marks
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Pose, Sample, project_points
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.state import State
from mistral_txm.simulated_beamline.textures import load

FLAT_S = 150.0
FLATS_BEFORE_S = 600.0
SETTLING_S = 65.0


def exposure_s(theta_deg):
    """25 x 20 s, 20 x 12 s or 15 x 8 s, by the tilt."""
    return 500.0 if abs(theta_deg) >= 45 else 240.0 if abs(theta_deg) >= 25 else 120.0


class MarkedSample(Sample):
    """A sample with so many spheres in the field of view, none on another."""

    def __init__(self, texture, settings, count, seed, radius_nm=1250.0, apart_nm=260.0):
        super().__init__(texture, seed, settings.fiducials)
        rng = np.random.default_rng([seed, 77])
        xy = np.zeros((0, 2))
        while len(xy) < count:
            new = rng.uniform(-radius_nm, radius_nm, 2)
            if np.hypot(*new) < radius_nm and (np.hypot(*(xy - new).T) > apart_nm).all():
                xy = np.vstack([xy, new])
        size = settings.fiducials.radius_nm * (1 + 0.1 * rng.uniform(-1, 1, count))
        below = rng.random(count) < 0.3
        bottom_nm, top_nm = texture.surfaces_nm(xy)
        z_nm = np.where(below, bottom_nm - size, top_nm + size)
        self._spheres_nm = np.column_stack([xy, z_nm, size])[np.isfinite(z_nm)]


@dataclass(frozen=True)
class Rendered:
    """An angle before any noise: photons and dose of both helicities and of their flats, and the true poses."""

    stated_phi_deg: float
    theta_deg: float
    photons: tuple
    flats: tuple
    poses: tuple


def render(
    texture, count, tilts_deg, n, *, azimuths_deg=(0.0, 102.0), seed=0, spoiled=None, altered=None
):
    """Angles of all azimuths; ``spoiled(phi, theta)`` says how many spheres are lost and merged there.

    ``altered(state)`` is the state that an exposure of the sample really had.
    """
    settings = load_settings("real")
    sample = MarkedSample(load(texture), settings, count, seed)
    beamline = Beamline(sample, settings, (n, n), seed)
    above = State(
        theta_deg=0.0, azimuth_deg=0.0, sample_x_um=0.0, sample_y_um=0.0, sample_z_um=0.0, zone_plate_z_um=0.0,
        jaw_down_mm=1.5, jaw_up_mm=2.5, energy_ev=707.4, shutter_open=True, exposure_s=1.0, region=Region(0, 0, n, n),
    )  # fmt: skip
    below = replace(above, jaw_down_mm=-2.5, jaw_up_mm=-1.5, zone_plate_z_um=1.5)
    found, time_s = [], FLATS_BEFORE_S
    for phi_deg in azimuths_deg:
        for theta_deg in map(float, tilts_deg):
            lost, merged = spoiled(phi_deg, theta_deg) if spoiled else (0, 0)
            photons, flats, poses = [], [], []
            for one in (above, below):
                time_s += exposure_s(theta_deg) + SETTLING_S
                at = replace(
                    one, theta_deg=theta_deg, azimuth_deg=phi_deg, exposure_s=exposure_s(theta_deg), time_s=time_s,
                    fiducials_lost=lost, fiducials_merged=merged,
                )  # fmt: skip
                beside = replace(
                    one, sample_x_um=200.0, exposure_s=FLAT_S, time_s=time_s - FLATS_BEFORE_S
                )
                if altered is not None:
                    at = altered(at)
                for state, into in ((at, photons), (beside, flats)):
                    dose = beamline.ring_current_ma(state, 0) * state.exposure_s
                    into.append((beamline.expected_photons(state, 0), dose))
                pose, drift = beamline.pose(at, 0)
                poses.append(
                    replace(
                        pose,
                        shift_u_nm=pose.shift_u_nm + PIXEL_NM * drift.u_pixels,
                        shift_v_nm=pose.shift_v_nm + PIXEL_NM * drift.v_pixels,
                    )
                )
            found.append(Rendered(phi_deg, theta_deg, tuple(photons), tuple(flats), tuple(poses)))
    return found


def absorbances(one, rng, flat_noise):
    """Those of both helicities and their variances; the photons of the flats are drawn once for a series."""
    found = []
    for (light, dose), (flat, flat_dose), noise in zip(
        one.photons, one.flats, flat_noise, strict=True
    ):
        counts = np.maximum(rng.poisson(light), 1)
        open_beam = flat + np.sqrt(flat) * noise
        found.append((-np.log(counts / dose / (open_beam / flat_dose)), 1 / counts + 1 / open_beam))
    return found


def developed(rendered, seed):
    """Signals and marks of each angle, as the live path makes and keeps them."""
    rng = np.random.default_rng(seed)
    flat_noise = rng.normal(size=(2, *rendered[0].flats[0][0].shape))
    found = []
    for one in rendered:
        (plus, var_plus), (minus, var_minus) = absorbances(one, rng, flat_noise)
        images = ((plus + minus) / 2, (plus - minus) / 2, np.sqrt(var_plus + var_minus) / 2)
        signals = Signals(*(image.astype(np.float32) for image in images))
        marked = with_marks(AngleSignals(one.stated_phi_deg, one.theta_deg, signals), PIXEL_NM)
        found.append(needed_for_volume(marked, PIXEL_NM))
    return found


def only_marked(rendered, seed):
    """The fiducials of each angle alone, which costs less."""
    rng = np.random.default_rng(seed)
    flat_noise = rng.normal(size=(2, *rendered[0].flats[0][0].shape))
    nothing = Signals(*(np.full((16, 16), value, np.float32) for value in (0.0, 0.0, 1.0)))
    found = []
    for one in rendered:
        (plus, _), (minus, _) = absorbances(one, rng, flat_noise)
        marks = find_fiducials((plus + minus) / 2, PIXEL_NM)
        found.append(AngleSignals(one.stated_phi_deg, one.theta_deg, nothing, marks))
    return found


def _falls(poses: tuple[Pose, ...], points_xyz_nm):
    """(v, u) of points, in the mean of both helicities."""
    return np.mean([project_points(points_xyz_nm, pose)[:, ::-1] for pose in poses], axis=0)


def errors_pixels(views, rendered, points_xy_nm=((0.0, 0.0),)):
    """How far points of the film fall from where they truly do, (views, points, 2), less one move of the origin.

    The move in x, y and z is all that is taken out: nothing tells where the origin of the sample is.
    """
    true = {(one.stated_phi_deg, one.theta_deg): one.poses for one in rendered}
    points = np.column_stack([points_xy_nm, np.zeros(len(points_xy_nm))])
    off, moves = [], []
    for one in views:
        phi = np.deg2rad(one.phi_deg)
        stage_x = points[:, 0] * np.cos(phi) - points[:, 1] * np.sin(phi)
        stage_y = points[:, 0] * np.sin(phi) + points[:, 1] * np.cos(phi)
        for angle, theta_deg, warp, shift in zip(
            one.angles, one.theta_deg_t, one.warp_tvu, one.shift_vu_nm_t, strict=True
        ):
            nominal = np.column_stack([stage_y, stage_x * np.cos(np.deg2rad(theta_deg))])
            poses = true[one.stated_phi_deg, angle.theta_deg]
            off.append(nominal @ warp.T + shift - _falls(poses, points))
            move = (_falls(poses, np.eye(3)) - _falls(poses, np.zeros((3, 3)))).T
            moves.append(np.repeat(move[None], len(points), axis=0))
    off, moves = np.array(off), np.array(moves)
    origin = np.linalg.lstsq(moves.reshape(-1, 3), off.ravel())[0]
    return (off - moves @ origin) / PIXEL_NM
