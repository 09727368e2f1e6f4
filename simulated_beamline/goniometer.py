"""Where the sample really stands: the goniometer behind the readbacks.

The stages x, y, z ride on the tilt stage. With the displacement d' = (x + x0, y, z + z0) of the
sample's origin from the tilt axis in the stage frame, (x0, z0) the offset of the axis, the origin
appears at the projection of d', and stands

    depth = d'_x sin(theta) + d'_z cos(theta)

behind the plane in focus (lean neglected). To the projection come

- the run-out, the same at every visit to a tilt: harmonics of the tilt with periods of
  `RUN_OUT_PERIODS_DEG`, random in phase, of equal rms in u, v and depth;
- the sphere of confusion, normally distributed: where time runs, drawn anew after every motion,
  where it is repeatable, for every position of tilt, azimuth and stages;
- the drift of the sample against the camera: two slow oscillations, of `DRIFT_PERIODS_H`, whose rms
  velocity is the one set;
- the jitter from exposure to exposure.

A sample that was turned by hand is neither at the azimuth nor at the place that was meant.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.sample import PIXEL_NM, Pose, project_points
from mistral_txm.simulated_beamline.settings import Settings
from mistral_txm.simulated_beamline.state import State, entropy

SAMPLE_HALF_WIDTH_UM = 100.0
"""Distance from the centre of the film beyond which the beam passes beside it, in the film."""
RUN_OUT_PERIODS_DEG = (97.0, 41.0, 17.0, 7.0)
DRIFT_PERIODS_H = (5.3, 1.7)


@dataclass(frozen=True)
class ImageShift:
    """How far the whole image lies off, in pixels of the camera along u and v."""

    u_pixels: float
    v_pixels: float


class Goniometer:
    """The imperfections of one goniometer; `seed` draws them."""

    def __init__(self, settings: Settings, seed: int) -> None:
        """Draw the phases of run-out and drift."""
        self._settings = settings.goniometer
        self._jitter_pixels = settings.image.jitter_pixels
        self._seed = seed
        random = np.random.default_rng([seed, 0x60])
        self._run_out_phases = random.uniform(0, 2 * np.pi, (3, len(RUN_OUT_PERIODS_DEG)))
        self._drift_phases = random.uniform(0, 2 * np.pi, (2, len(DRIFT_PERIODS_H)))

    def azimuth_deg(self, said_deg: float) -> float:
        """Return the azimuth at which the sample is mounted where the operator says `said_deg`.

        The hand that turns it errs. The mounting at 0 defines the sample's frame: it has no error.
        """
        if said_deg == 0:
            return 0.0
        random = np.random.default_rng(entropy("azimuth", self._seed, said_deg))
        return said_deg + self._settings.azimuth_error_deg * float(random.standard_normal())

    def run_out_nm(self, theta_deg: float) -> NDArray[np.float64]:
        """Return the run-out (u, v, depth) at a tilt, nm."""
        phases = 2 * np.pi * theta_deg / np.array(RUN_OUT_PERIODS_DEG) + self._run_out_phases
        scale = self._settings.run_out_nm * math.sqrt(2 / len(RUN_OUT_PERIODS_DEG))
        result: NDArray[np.float64] = scale * np.sin(phases).sum(axis=1)
        return result

    def mounting_nm(self, said_deg: float) -> NDArray[np.float64]:
        """Return where the turned sample was put, (x, y) in nm of the stage; at 0 where it belongs."""
        random = np.random.default_rng(entropy("mounting", self._seed, said_deg))
        off_nm = self._settings.mounting_nm * random.standard_normal(2)
        return off_nm if said_deg != 0 else np.zeros(2)

    def pose(self, state: State) -> Pose | None:
        """Return how the sample stands, drift and jitter apart; None where the beam misses it."""
        x_um, y_um = state.sample_x_um, state.sample_y_um
        theta = math.radians(state.theta_deg)
        # Where the beam on the axis meets the film.
        along_um = state.sample_z_um * math.tan(theta) - x_um
        if max(abs(along_um), abs(y_um)) > SAMPLE_HALF_WIDTH_UM:
            return None
        settings = self._settings
        azimuth_deg = self.azimuth_deg(state.azimuth_deg) + state.azimuth_error_deg
        mounted_nm = self.mounting_nm(state.azimuth_deg)
        axes = Pose(
            theta_deg=state.theta_deg,
            azimuth_deg=azimuth_deg,
            inclination_deg=settings.inclination_deg,
            lean_deg=settings.lean_deg,
        )
        x_nm = 1000 * (x_um + settings.axis_offset_x_um) + mounted_nm[0]
        y_nm = 1000 * y_um + mounted_nm[1]
        z_nm = 1000 * (state.sample_z_um + settings.axis_offset_z_um)
        phi = math.radians(azimuth_deg)
        # Back into the sample's frame, which is what is projected.
        origin_nm = np.array(
            [
                [
                    x_nm * math.cos(phi) + y_nm * math.sin(phi),
                    -x_nm * math.sin(phi) + y_nm * math.cos(phi),
                    z_nm,
                ]
            ]
        )
        place = (state.theta_deg, state.azimuth_deg, x_um, y_um, state.sample_z_um, state.visit)
        random = np.random.default_rng(entropy("confusion", self._seed, *place))
        off_nm = self.run_out_nm(state.theta_deg)
        off_nm += settings.sphere_of_confusion_nm * random.standard_normal(3)
        shift_nm = project_points(origin_nm, axes)[0] + off_nm[:2]
        depth_nm = x_nm * math.sin(theta) + z_nm * math.cos(theta) + off_nm[2]
        return Pose(
            theta_deg=state.theta_deg,
            azimuth_deg=azimuth_deg,
            shift_u_nm=float(shift_nm[0]),
            shift_v_nm=float(shift_nm[1]),
            depth_nm=float(depth_nm),
            inclination_deg=settings.inclination_deg,
            lean_deg=settings.lean_deg,
        )

    def drift(self, time_s: float) -> ImageShift:
        """Return how far the sample has drifted at a time, from where it was at time 0."""
        angular_per_s = 2 * np.pi / (3600 * np.array(DRIFT_PERIODS_H))
        # Equal rms velocities, which add up to the one set for each direction.
        velocity_nm_s = self._settings.drift_nm_per_h / 3600 * math.sqrt(2 / len(DRIFT_PERIODS_H))
        now = np.sin(angular_per_s * time_s + self._drift_phases) - np.sin(self._drift_phases)
        u_nm, v_nm = velocity_nm_s * (now / angular_per_s).sum(axis=1)
        return ImageShift(float(u_nm) / PIXEL_NM, float(v_nm) / PIXEL_NM)

    def jitter(self, state: State, index: int) -> ImageShift:
        """Return how far exposure `index` of a state lies off the others."""
        if self._jitter_pixels == 0:
            return ImageShift(0.0, 0.0)
        random = np.random.default_rng(state.entropy("jitter", self._seed, index))
        u_pixels, v_pixels = self._jitter_pixels * random.standard_normal(2)
        return ImageShift(float(u_pixels), float(v_pixels))
