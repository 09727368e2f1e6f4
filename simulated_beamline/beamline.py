"""The physics behind the server: from a state and the number of a frame to the frame."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline import materials, optics, source
from mistral_txm.simulated_beamline.detector import Ccd
from mistral_txm.simulated_beamline.goniometer import Goniometer, ImageShift
from mistral_txm.simulated_beamline.sample import PIXEL_NM, Image, Pose, Sample, View
from mistral_txm.simulated_beamline.settings import Settings
from mistral_txm.simulated_beamline.state import State, entropy

VIEWS_KEPT = 4
TRANSMISSIONS_KEPT = 8
LARGEST_SHIFT_PIXELS = 3.0
"""How far an image can be shifted without being rendered anew."""
MARGIN_PIXELS = optics.SHIFT_REACH + 4
"""What is rendered beyond the edges so that there is something to shift in."""
SMALLEST_ABSORBANCE = 1e-4
"""Dichroism below this, at the whole thickness, is left out: noise is a hundred times more."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
ViewKey = tuple[Pose, frozenset[str], int, int]
TransmissionKey = tuple[ViewKey, float, float, float]


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


class Beamline:
    """Renders the frames of one sample on one beamline; `seed` draws all that is random.

    A frame depends on the seed, the state and the number of the exposure (`index`): the same three
    give the same frame, whatever was measured before, however long it took and in whatever file it is.
    """

    def __init__(
        self, sample: Sample, settings: Settings, shape_vu: tuple[int, int], seed: int
    ) -> None:
        """Draw what is fixed: illumination, chip, goniometer."""
        self.sample = sample
        self.settings = settings
        self.shape_vu = shape_vu
        self._seed = seed
        self._ring = source.Ring(settings.ring)
        self._magnet = source.BendingMagnet(settings.ring, settings.beam)
        self._zone_plate = optics.ZonePlate(settings.zone_plate)
        self._illumination = optics.Illumination(settings.illumination, shape_vu, seed)
        self._ccd = Ccd(settings.camera, shape_vu, seed)
        self._goniometer = Goniometer(settings, seed)
        moves = settings.image.jitter_pixels > 0 or settings.goniometer.drift_nm_per_h > 0
        self._margin = MARGIN_PIXELS if moves else 0
        self._views: _Recent[ViewKey, View] = _Recent(self._make_view, VIEWS_KEPT)
        self._transmissions: _Recent[TransmissionKey, Image] = _Recent(
            self._make_transmission, TRANSMISSIONS_KEPT
        )

    def began_s(self, state: State, index: int) -> float:
        """Return when exposure `index` of a state began, on the clock of the ring, s.

        Where time is repeatable, a setting begins at a moment between two injections that it draws
        itself, and the clock runs on with every exposure in it; one that would see an injection waits
        for it. An exposure into which an injection is to fall begins half of its duration before one.
        """
        period_s = self.settings.ring.top_up_period_s
        if self.settings.clock.kind == "running":
            began_s = state.time_s
        else:
            drawn = entropy("moment", self._seed, *state.setting) / 2**128
            began_s = _undisturbed_s(drawn * period_s, index, state.exposure_s, period_s)
        if state.injection:
            return math.ceil(began_s / period_s) * period_s - state.exposure_s / 2
        return began_s

    def ring_current_ma(self, state: State, index: int) -> float:
        """Return the mean ring current during exposure `index` of a state, in mA."""
        return self._ring.mean_current_ma(self.began_s(state, index), state.exposure_s)

    def to_injection_s(self, time_s: float) -> float:
        """Return the time to the next injection, s."""
        return self._ring.to_injection_s(time_s)

    def current_ma(self, time_s: float) -> float:
        """Return the ring current at a moment, mA."""
        return self._ring.current_ma(time_s)

    def pose(self, state: State, index: int) -> tuple[Pose, ImageShift] | None:
        """Return the true pose in exposure `index`, and how far the image is shifted from it.

        None where the beam passes beside the sample. Helicity and drift, in whole pixels, are part
        of the pose: the image is rendered there.
        """
        pose = self._goniometer.pose(state)
        if pose is None:
            return None
        image = self.settings.image
        helicity = self._angle_mrad(state) / (2 * self.settings.zone_plate.focus_angle_mrad)
        drift = self._goniometer.drift(self.began_s(state, index))
        jitter = self._goniometer.jitter(state, index)
        whole_u, whole_v = round(drift.u_pixels), round(drift.v_pixels)
        shift_u = image.helicity_shift_u_pixels * helicity + whole_u
        shift_v = image.helicity_shift_v_pixels * helicity + whole_v
        rest_u = drift.u_pixels - whole_u + jitter.u_pixels
        rest_v = drift.v_pixels - whole_v + jitter.v_pixels
        return replace(
            pose,
            shift_u_nm=pose.shift_u_nm + PIXEL_NM * shift_u,
            shift_v_nm=pose.shift_v_nm + PIXEL_NM * shift_v,
        ), ImageShift(_limited(rest_u), _limited(rest_v))

    def light(self, state: State) -> tuple[float, float]:
        """Return (intensity against that of the nominal jaws, circular degree) of a state's light."""
        beam = self.settings.beam
        magnet = self._magnet
        intensity, degree = magnet.accepted(state.energy_ev, state.jaw_down_mm, state.jaw_up_mm)
        nominal, _degree = magnet.accepted(
            state.energy_ev, beam.nominal_jaw_down_mm, beam.nominal_jaw_up_mm
        )
        return intensity / nominal, -degree if state.helicity_swapped else degree

    def defocus_um(self, state: State, pose: Pose) -> float:
        """Return how far the film in the middle of the image lies behind the plane in focus, um.

        Where the tilted sample has moved by u, another part of the film is there, u tan(theta) nearer.
        """
        focus_um = self._zone_plate.best_focus_um(self._angle_mrad(state), state.energy_ev)
        nearer_nm = pose.shift_u_nm * math.tan(math.radians(pose.theta_deg))
        return (pose.depth_nm - nearer_nm) / 1000 + focus_um - state.zone_plate_z_um

    def prepare(self, state: State) -> None:
        """Render the view of a state ahead of its first exposure."""
        posed = self.pose(state, 0)
        if posed is not None:
            self._views(self._view_key(state, posed[0]))

    def expected_photons(self, state: State, index: int) -> Image | None:
        """Return the expected photons per pixel in exposure `index`; None where no light comes."""
        intensity, degree = self.light(state)
        if not state.shutter_open or intensity == 0.0 or state.lit_fraction == 0.0:
            return None
        current = self.ring_current_ma(state, index) / self.settings.ring.current_ma
        seconds = state.exposure_s * state.lit_fraction
        photons = self.settings.beam.photons_per_s * seconds * current * intensity
        structure_vu = self._illumination.image(self._angle_mrad(state), self.began_s(state, index))
        photons_vu: Image = structure_vu * np.float32(photons)
        if (posed := self.pose(state, index)) is not None:
            pose, shift = posed
            key = (
                self._view_key(state, pose),
                state.energy_ev,
                degree,
                self.defocus_um(state, pose),
            )
            transmission_vu = self._transmissions(key)
            if self._margin:
                transmission_vu = optics.shifted(
                    transmission_vu, shift.u_pixels, shift.v_pixels, self._margin
                )
            photons_vu *= transmission_vu
        return photons_vu

    def frame(self, state: State, index: int) -> NDArray[np.uint16]:
        """Render exposure `index` of `state`; returns counts [v, u]."""
        photons_vu = self.expected_photons(state, index)
        noise = np.random.Generator(np.random.SFC64(state.entropy("noise", self._seed, index)))
        return self._ccd.read(
            photons_vu,
            state.energy_ev,
            state.exposure_s,
            noise,
            region=state.region,
            offset_counts=state.dark_offset_counts,
            temperature_c=state.temperature_c,
            zinger_burst=state.zinger_burst,
        )

    def expected_counts(self, state: State, index: int) -> Image:
        """Return what exposure `index` would be without noise and cosmic rays, in counts [v, u]."""
        return self._ccd.expected_counts(
            self.expected_photons(state, index),
            state.energy_ev,
            state.exposure_s,
            region=state.region,
            offset_counts=state.dark_offset_counts,
            temperature_c=state.temperature_c,
        )

    def _angle_mrad(self, state: State) -> float:
        return self._magnet.angle_mrad(state.jaw_down_mm, state.jaw_up_mm)

    def _view_key(self, state: State, pose: Pose) -> ViewKey:
        resolving_power = self.settings.monochromator.resolving_power
        seen = frozenset(
            layer.material
            for layer in self.sample.texture.layers
            if abs(materials.dichroism_per_nm(layer.material, state.energy_ev, resolving_power))
            * layer.thickness_nm
            > SMALLEST_ABSORBANCE
        )
        return pose, seen, state.fiducials_lost, state.fiducials_merged

    def _make_view(self, key: ViewKey) -> View:
        pose, seen, lost, merged = key
        padding = 2 * (optics.PADDING + self._margin)
        shape_vu = (self.shape_vu[0] + padding, self.shape_vu[1] + padding)
        return self.sample.view(pose, shape_vu, seen, self.sample.spheres(lost, merged))

    def _make_transmission(self, key: TransmissionKey) -> Image:
        view_key, energy_ev, degree, defocus_um = key
        view = self._views(view_key)
        resolving_power = self.settings.monochromator.resolving_power
        absorbance_vu: Image | np.float32 = np.float32(0)
        for material, path_nm in view.path_nm.items():
            mu = materials.absorption_per_nm(material, energy_ev, resolving_power)
            absorbance_vu = absorbance_vu + np.float32(mu) * path_nm
        for material, moment_nm_vu in view.dichroic_nm.items():
            delta = materials.dichroism_per_nm(material, energy_ev, resolving_power) * degree
            absorbance_vu = absorbance_vu + np.float32(delta) * moment_nm_vu
        return self._zone_plate.image(
            np.exp(-absorbance_vu), PIXEL_NM, defocus_um, view_key[0].theta_deg, energy_ev
        )


def _undisturbed_s(first_s: float, index: int, exposure_s: float, period_s: float) -> float:
    """Return when exposure `index` of a row begins, if none may see one of the periodic injections.

    >>> [_undisturbed_s(80.0, index, 8.0, 100.0) for index in range(4)]
    [80.0, 88.0, 100.0, 108.0]
    """
    if exposure_s <= 0:
        return first_s
    before = int((period_s - first_s) // exposure_s)
    if index < before:
        return first_s + index * exposure_s
    periods, rest = divmod(index - before, max(int(period_s // exposure_s), 1))
    return (1 + periods) * period_s + rest * exposure_s


def _limited(pixels: float) -> float:
    """Keep a shift within what the margin holds; a jitter of 20 times its rms is cut."""
    return min(max(pixels, -LARGEST_SHIFT_PIXELS), LARGEST_SHIFT_PIXELS)
