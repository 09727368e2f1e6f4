"""What is decided from counts, against a camera that was made up and photons that were drawn."""

import math
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.plans.exposure_control import Frame, Seen
from mistral_txm.plans.measurement import ExposureControl
from mistral_txm.plans.steps import Step

CCD = load_configuration().ccd
OFFSET_COUNTS = 300.0
COUNTS_PER_PHOTON = 707.4 / 3.65 / 1.6
"""Electrons of a photon at the iron edge, over electrons per count."""
CHOICES_S = (2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 30.0)
NUMBERS = count()


def step(stream="primary", theta_deg=0.0, helicity=1, exposure_s=2.0):
    return Step(stream, 0.0, theta_deg, helicity, 707.4, exposure_s, (0, 1, 2))


def frame(mean, bright=None, helicity=1, ring_current_ma=250.0):
    """A frame as a camera that cannot count beyond its saturation gives it."""
    bright = mean if bright is None else bright
    clipped = [min(each, CCD.saturation_counts) for each in (mean, bright)]
    return Frame(*clipped, 0.0, ring_current_ma, next(NUMBERS), helicity)


def calibrated(flat_per_s=2000.0):
    """What was seen after dark frames and flats."""
    seen = Seen(CCD)
    for exposure_s in CHOICES_S:
        dark = step("dark", helicity=0, exposure_s=exposure_s)
        seen.add(dark, 0, exposure_s, frame(OFFSET_COUNTS))
    for helicity in (1, -1):
        lit = frame(OFFSET_COUNTS + flat_per_s, helicity=helicity)
        seen.add(step("flat", helicity=helicity), 0, 1.0, lit)
    return seen


def walk(bright_per_s, absorbance, first_s, fill=0.8):
    """Yield tilt, exposure and the counts of the brightest pixels over all tilts of a film, a camera beyond limits."""
    control = ExposureControl(exposures_s=CHOICES_S, fill=fill)
    seen = calibrated()
    for theta_deg in np.arange(-55.0, 55.1, 2.5):
        rate = bright_per_s * math.exp(-absorbance / math.cos(math.radians(theta_deg)))
        here = step(theta_deg=float(theta_deg), exposure_s=first_s)
        exposure_s = seen.exposure_s(here, control, 250.0)
        counts = OFFSET_COUNTS + rate * exposure_s
        yield theta_deg, exposure_s, counts
        seen.add(here, 0, exposure_s, frame(0.5 * counts, counts))


@settings(deadline=None, max_examples=60)
@given(st.floats(1e3, 1e5), st.floats(0.0, 2.0))
def test_no_tilt_saturates_and_the_range_is_used(bright_per_s, absorbance):
    """From one tilt to the next a film brightens by less than a quarter, which the fill of 0.8 leaves."""
    views = list(walk(bright_per_s, absorbance, first_s=2.0))
    if views[0][2] >= CCD.saturation_counts:
        return  # not even the first exposure of the plan fits
    for (_, _, before), (_, exposure_s, counts) in pairwise(views):
        assert counts < CCD.saturation_counts or exposure_s == CHOICES_S[0]
        if before < 0.9 * CCD.saturation_counts and exposure_s < CHOICES_S[-1]:
            longer_s = CHOICES_S[CHOICES_S.index(exposure_s) + 1]
            net = counts - OFFSET_COUNTS
            # Had it been longer, it would have been too bright, or would be at the tilt before.
            assert net * longer_s / exposure_s * 1.25 > 0.8 * CCD.saturation_counts - OFFSET_COUNTS


def test_a_plan_that_saturates_is_corrected_within_two_tilts():
    """4500 counts/s: 30 s saturate; what is seen then is too little, but 12 s fit at once, or one tilt later."""
    views = list(walk(4500.0, 0.0, first_s=30.0))
    assert views[0][2] > CCD.saturation_counts
    assert all(counts < CCD.saturation_counts for _, _, counts in views[3:])
    # (0.8 * 62700 - 300) / 4500 = 11.08 s
    assert views[-1][1] == 8.0


def test_a_refilled_ring_is_exposed_shorter():
    """At 100 mA 20 s fit, and are 40300 of 62700 counts; at 250 mA they would be 100300."""
    seen = calibrated()
    control = ExposureControl(exposures_s=CHOICES_S)
    seen.add(step(), 0, 20.0, frame(2e4, 300.0 + 20 * 2000.0, ring_current_ma=100.0))
    assert seen.exposure_s(step(), control, 100.0) == 20.0
    assert seen.exposure_s(step(), control, 250.0) == 8.0


def test_jaws_that_stand_elsewhere_are_told():
    seen = calibrated()
    assert seen.trouble(step(), 2.0, frame(3e4)) == ""
    expected = "polarization: the jaws stand at helicity 0, expected 1"
    assert seen.trouble(step(), 2.0, frame(3e4, helicity=0)) == expected


def test_what_was_kept_once_is_not_asked_again_in_the_same_step():
    """A person has looked at a faint view; its other exposures are as faint."""
    seen = calibrated()
    faint = frame(OFFSET_COUNTS + 1.0)
    assert seen.trouble(step(), 2.0, faint)
    seen.add(step(), 0, 2.0, faint)
    assert seen.trouble(step(), 2.0, frame(OFFSET_COUNTS + 1.0)) == ""
    assert seen.trouble(step(theta_deg=1.0), 2.0, frame(OFFSET_COUNTS + 1.0))


@settings(deadline=None)
@given(st.floats(0.0, 1e6), st.floats(0.1, 1.0))
def test_the_exposure_is_the_longest_that_fits(bright_per_s, fill):
    seen = calibrated()
    seen.add(step(), 0, 2.0, Frame(1e4, OFFSET_COUNTS + 2.0 * bright_per_s, 0.0, 250.0, 1, 1))
    chosen_s = seen.exposure_s(step(), ExposureControl(exposures_s=CHOICES_S, fill=fill), 250.0)
    room = fill * CCD.saturation_counts - OFFSET_COUNTS
    fits = [each for each in CHOICES_S if bright_per_s * each <= room * (1 + 1e-12)]
    assert chosen_s == (fits[-1] if fits else CHOICES_S[0])


def test_the_plan_holds_without_control_and_until_something_was_seen():
    seen, control = calibrated(), ExposureControl(exposures_s=CHOICES_S)
    assert seen.exposure_s(step(exposure_s=7.0), control, 250.0) == 7.0
    seen.add(step(), 0, 2.0, frame(1e4))
    assert seen.exposure_s(step(exposure_s=7.0), None, 250.0) == 7.0
    assert seen.exposure_s(step(helicity=-1, exposure_s=7.0), control, 250.0) == 7.0
    assert seen.exposure_s(step("flat", exposure_s=7.0), control, 250.0) == 7.0


@pytest.mark.parametrize("photons", [5.0, 80.0, 400.0])
def test_the_signal_to_noise_is_that_of_photons(photons):
    """The scatter of a pixel of the average over 12 frames of Poisson photons."""
    random = np.random.default_rng(7)
    drawn = random.poisson(photons, (12, 20_000))
    frames = OFFSET_COUNTS + COUNTS_PER_PHOTON * drawn
    seen = calibrated()
    for repeat, each in enumerate(frames):
        spent = seen.add(step(), repeat, 2.0, frame(float(each.mean())))
        assert spent.photons_per_pixel == pytest.approx(photons, rel=0.02)
    average = frames.mean(axis=0) - OFFSET_COUNTS
    assert spent.signal_to_noise == pytest.approx(average.mean() / average.std(), rel=0.02)
    assert spent.dose_mA_s == pytest.approx(12 * 250.0 * 2.0)


def test_it_is_enough_when_signal_to_noise_and_least_repeats_are_there():
    """100 photons each: four of them have a signal to noise of 20."""
    control = ExposureControl(exposures_s=CHOICES_S, signal_to_noise=20.0, least_repeats=5)
    seen, taken = calibrated(), []
    for repeats in range(1, 7):
        seen.add(step(), repeats - 1, 2.0, frame(OFFSET_COUNTS + 100.001 * COUNTS_PER_PHOTON))
        taken.append(seen.is_enough(step(), repeats, control))
        no_least = control.model_copy(update={"least_repeats": 1})
        assert seen.is_enough(step(), repeats, no_least) == (repeats >= 4)
    assert taken == [False, False, False, False, True, True]
    assert not seen.is_enough(step(helicity=-1), 6, control)
    assert not seen.is_enough(step(), 6, None)
    assert not seen.is_enough(step(), 6, ExposureControl(exposures_s=CHOICES_S))


@pytest.mark.parametrize(
    ("stream", "net_per_s", "dark"),
    [
        ("primary", 0.0, True),
        ("primary", 15.0, True),  # less than a hundredth of the flats' 2000 counts/s
        ("primary", 25.0, False),
        ("flat", 0.5 * COUNTS_PER_PHOTON, True),
        ("flat", 1.5 * COUNTS_PER_PHOTON, False),
        ("dark", 0.0, False),
    ],
)
def test_a_frame_without_light_is_told(stream, net_per_s, dark):
    seen = calibrated()
    found = seen.trouble(step(stream), 1.0, frame(OFFSET_COUNTS + net_per_s))
    assert bool(found) == dark
    assert not dark or "no light came" in found


def test_the_last_frame_of_another_file_is_told():
    seen = calibrated()
    last = frame(1e4)
    seen.add(step(), 0, 1.0, last)
    assert seen.trouble(step(), 1.0, last) == ""
    assert "bit by bit" in seen.trouble(step(theta_deg=1.0), 1.0, last)
