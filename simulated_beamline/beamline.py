"""The physics behind the server: from a state and the number of a frame to the frame."""

import hashlib
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import astuple
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline import materials, optics, source
from mistral_txm.simulated_beamline.detector import Ccd
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Image, Pose, Sample, View
from mistral_txm.simulated_beamline.state import State

PHOTONS_PER_S = 50.0
"""Photons per pixel and second in the open beam through `NOMINAL_JAWS_MM` at full ring current: an
assumption; 8 s make 400, close to what the full well of a direct-detection CCD holds."""
NOMINAL_JAWS_MM = (1.5, 2.5)
RESOLVING_POWER = 2000.0
SAMPLE_HALF_WIDTH_UM = 100.0
"""Distance from the centre of the film beyond which the beam passes beside it, in the film."""
VIEWS_KEPT = 4
TRANSMISSIONS_KEPT = 8

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Recent(Generic[Key, Value]):
    """The most recently used results of a function."""

    def __init__(self, make: Callable[[Key], Value], kept: int) -> None:
        self._make = make
        self._kept = kept
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __call__(self, key: Key) -> Value:
        if key not in self._values:
            self._values[key] = self._make(key)
        self._values.move_to_end(key)
        while len(self._values) > self._kept:
            self._values.popitem(last=False)
        return self._values[key]


def pose_of(state: State) -> Pose | None:
    """Return how the sample stands in the beam, None where the beam passes beside it.

    The goniometer is perfect: what the motors say is where the sample is. The stages move the image
    along the detector's axes, and the sample out of focus, whatever the tilt.
    """
    half_um = SAMPLE_HALF_WIDTH_UM * math.cos(math.radians(state.theta_deg))
    if abs(state.sample_x_um) > half_um or abs(state.sample_y_um) > SAMPLE_HALF_WIDTH_UM:
        return None
    return Pose(
        theta_deg=state.theta_deg,
        azimuth_deg=state.azimuth_deg,
        shift_u_nm=1000 * state.sample_x_um,
        shift_v_nm=1000 * state.sample_y_um,
        depth_nm=1000 * state.sample_z_um,
    )


class Beamline:
    """Renders the frames of one sample on one beamline; `seed` draws noise, spots and hot pixels.

    A frame depends on the seed, the state and the number of the frame in its file: the same three
    give the same frame, whatever was measured before and however long it took.
    """

    def __init__(self, sample: Sample, shape_vu: tuple[int, int], seed: int) -> None:
        """Draw what is fixed: the illumination and the camera's chip."""
        self.sample = sample
        self.shape_vu = shape_vu
        self._seed = seed
        self._illumination = optics.Illumination(shape_vu, seed)
        self._ccd = Ccd(shape_vu, seed)
        self._views: _Recent[Pose, View] = _Recent(self._make_view, VIEWS_KEPT)
        self._transmissions: _Recent[tuple[Pose, float, float, float], Image] = _Recent(
            self._make_transmission, TRANSMISSIONS_KEPT
        )
        self._last_state: State | None = None
        self._exposures = 0

    def exposure_index(self, state: State) -> int:
        """Count the exposures of the same state that no file captures."""
        self._exposures = self._exposures + 1 if state == self._last_state else 0
        self._last_state = state
        return self._exposures

    def _state_key(self, state: State) -> bytes:
        return struct.pack("<11d", *(round(float(value), 6) + 0.0 for value in astuple(state)))

    def ring_current_ma(self, state: State, index: int) -> float:
        """Return the ring current in the middle of exposure `index` of a state, in mA.

        The clock of the injections starts at a phase that the state draws, and runs on with every
        exposure in that state.
        """
        phase_s = source.top_up_phase_s(self._seed, self._state_key(state))
        return source.ring_current_ma(phase_s + (index + 0.5) * state.exposure_s)

    def _make_view(self, pose: Pose) -> View:
        padding = 2 * optics.PADDING
        shape_vu = (self.shape_vu[0] + padding, self.shape_vu[1] + padding)
        return self.sample.view(pose, shape_vu, materials.MAGNETIC, self.sample.spheres())

    def _make_transmission(self, key: tuple[Pose, float, float, float]) -> Image:
        pose, energy_ev, degree, defocus_um = key
        view = self._views(pose)
        absorbance_vu = np.zeros_like(next(iter(view.dichroic_nm.values())))
        for material, path_nm in view.path_nm.items():
            mu = materials.absorption_per_nm(material, energy_ev, RESOLVING_POWER)
            absorbance_vu += np.float32(mu) * path_nm
        for material, dichroic_nm in view.dichroic_nm.items():
            delta = materials.dichroism_per_nm(material, energy_ev, RESOLVING_POWER) * degree
            absorbance_vu += np.float32(delta) * dichroic_nm
        return optics.blur(np.exp(-absorbance_vu), PIXEL_NM, defocus_um, energy_ev)

    def prepare(self, state: State) -> None:
        """Render the view of a state ahead of its first exposure."""
        pose = pose_of(state)
        if pose is not None:
            self._views(pose)

    def expected_photons(self, state: State, index: int) -> Image | None:
        """Return the expected photons per pixel in exposure `index`; None where no light comes."""
        intensity, degree = source.accepted(state.energy_ev, state.jaw_down_mm, state.jaw_up_mm)
        if not state.shutter_open or intensity == 0.0:
            return None
        nominal, _degree = source.accepted(state.energy_ev, *NOMINAL_JAWS_MM)
        current = self.ring_current_ma(state, index) / source.CURRENT_MA
        photons = PHOTONS_PER_S * state.exposure_s * current * intensity / nominal
        angle_mrad = (state.jaw_down_mm + state.jaw_up_mm) / 2 / source.JAW_DISTANCE_M
        photons_vu: Image = self._illumination.image(angle_mrad) * np.float32(photons)
        pose = pose_of(state)
        if pose is not None:
            focus_um = optics.best_focus_um(angle_mrad, state.energy_ev)
            defocus_um = state.zone_plate_z_um - state.sample_z_um - focus_um
            photons_vu *= self._transmissions((pose, state.energy_ev, degree, defocus_um))
        return photons_vu

    def frame(self, state: State, index: int) -> NDArray[np.uint16]:
        """Render frame `index` of a file that is taken in `state`; returns counts [v, u]."""
        key = b"frame %d %d " % (self._seed, index) + self._state_key(state)
        entropy = int.from_bytes(hashlib.blake2b(key, digest_size=16).digest(), "little")
        photons_vu = self.expected_photons(state, index)
        random = np.random.Generator(np.random.SFC64(entropy))
        return self._ccd.read(photons_vu, state.energy_ev, state.exposure_s, random)
