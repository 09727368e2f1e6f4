"""Repeats of one state: bad ones found, shifts undone, the variance of the mean by a Monte Carlo."""

import doctest
import re

import numpy as np
import pytest

from mistral_txm.reconstruction import frames, repeats
from mistral_txm.reconstruction.flat_field import ring_numbers
from mistral_txm.reconstruction.frames import Dark, stack_of
from mistral_txm.reconstruction.repeats import average, lagrange_taps

GAIN, OFFSET, READ_COUNTS = 60.0, 300.0, 12.0
SHAPE = (96, 96)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def dark(shape=SHAPE):
    """A dark level that is known well."""
    return Dark(np.full(shape, OFFSET), READ_COUNTS**2, 1e9, np.zeros(shape, bool))


def domains(shift_v=0.0, shift_u=0.0, shape=SHAPE):
    """Transmittance of a film with structure of 25 pixels in all directions: an analytic function, moved."""
    v, u = np.mgrid[: shape[0], : shape[1]]
    v, u = v - shift_v, u - shift_u
    return 0.4 * np.exp(0.25 * np.sin(u / 4) * np.cos(v / 4.5) + 0.1 * np.sin((u + v) / 6))


def expose(rng, photons_tvu):
    photons = rng.poisson(photons_tvu)
    return OFFSET + GAIN * photons + rng.normal(0, READ_COUNTS, photons.shape)


def stacked(counts, **more):
    return stack_of(counts, dark(counts.shape[1:]), [1.0] * len(counts), **more)


@pytest.mark.parametrize("module", [frames, repeats])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_a_repeat_that_lost_light_is_found_and_not_in_the_mean(rng):
    light = np.array([1.0, 1.003, 0.9, 0.998, 1.0])
    counts = expose(rng, 400 * light[:, None, None] * domains())
    rate, findings = average(stacked(counts), GAIN)
    assert [one.number for one in findings.bad] == [2]
    assert findings.bad[0].reason.startswith(("89.", "90."))
    others, _ = average(stacked(counts[[0, 1, 3, 4]]), GAIN)
    np.testing.assert_array_equal(rate.rate_vu, others.rate_vu)


def test_of_two_repeats_the_darker_one_is_bad(rng):
    counts = expose(rng, 400 * np.array([0.8, 1.0])[:, None, None] * domains())
    assert [one.number for one in average(stacked(counts), GAIN)[1].bad] == [0]


def test_good_repeats_are_not_called_bad():
    """Photon noise of 40 photons and ring current read to 0.3 %: 60 stacks of 5, none is bad."""
    rng = np.random.default_rng(2)
    for _ in range(60):
        light = 1 + 0.003 * rng.standard_normal(5)
        counts = expose(rng, 100 * light[:, None, None] * domains())
        assert average(stacked(counts), GAIN)[1].bad == ()


def test_no_light_at_all_makes_no_repeat_bad(rng):
    rate, findings = average(stacked(expose(rng, np.zeros((4, *SHAPE)))), GAIN)
    assert findings.bad == ()
    assert abs(rate.rate_vu.mean()) < 1.0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda: domains(0.0, 9.0), "another image|moved by"),
        (lambda: domains()[::-1], "another image|moved by"),
        (lambda: np.full(SHAPE, domains().mean()), "another image"),
    ],
)
def test_a_repeat_with_another_image_is_found(rng, spoil, reason):
    images = np.stack([domains()] * 3 + [spoil()] + [domains()] * 2)
    images[3] *= np.median(images[0]) / np.median(images[3])
    _, findings = average(stacked(expose(rng, 400 * images)), GAIN)
    assert [one.number for one in findings.bad] == [3]
    assert re.match(reason, findings.bad[0].reason)


@pytest.mark.parametrize("slip_vu", [(2.5, 1.5), (6.0, 4.0), (12.5, 9.0), (28.0, 28.0)])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 2), (8, 7), (10, 10), (5, 10)])
def test_of_repeats_between_which_the_sample_slipped_those_at_one_place_are_in_the_mean(
    rng, before, after, slip_vu
):
    """Also of half and half: the mean of both lies near none of them."""
    moves = [(0.0, 0.0)] * before + [slip_vu] * after
    counts = expose(rng, 400 * np.array([domains(*move) for move in moves]))
    rate, findings = average(stacked(counts), GAIN)
    bad = {one.number for one in findings.bad}
    places = set(range(before)), set(range(before, before + after))
    assert bad in ([min(places, key=len)] if before != after else places)
    good = [number for number in range(len(counts)) if number not in bad]
    others, _ = average(stacked(counts[good]), GAIN)
    np.testing.assert_array_equal(rate.rate_vu, others.rate_vu)


def test_shifts_are_found_to_their_standard_deviation(rng):
    """24 stacks of 6 repeats: the mean error of a shift is what noise allows, and there is no bias."""
    found, true = [], []
    for _ in range(24):
        shifts = 0.3 * rng.standard_normal((6, 2))
        counts = expose(rng, np.stack([150 * domains(*each) for each in shifts]))
        found.append(average(stacked(counts), GAIN)[1].shift_vu)
        true.append(shifts - shifts.mean(axis=0))
    error = np.array(found) - np.array(true)
    slope = np.sum(np.array(found) * true) / np.sum(np.square(true))
    assert slope == pytest.approx(1.0, abs=0.02)
    # Cramer-Rao for shot noise of 60 photons and this gradient, for six repeats that share their mean.
    t = domains()
    gradient = np.array([np.sum(150 * np.gradient(t, axis=axis) ** 2 / t) for axis in (0, 1)])
    bound = np.sqrt(5 / 6 / gradient)
    rms = np.sqrt((error**2).mean(axis=(0, 1)))
    assert np.all(rms < 1.6 * bound), (rms, bound)


def test_what_a_flat_left_in_place_does_not_hold_the_shifts_back(rng):
    """A reference with 3 % noise of its own: the structure that it makes stays in place, the film moves."""
    noise, slopes = 0.03, []
    shifts = 0.4 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    weak = np.stack([0.4 + (domains(*each) - 0.4) / 5 for each in shifts])
    rings = np.full(ring_numbers(SHAPE).max() + 1, noise**2)
    for _ in range(8):
        reference = 1 + noise * rng.standard_normal(SHAPE)
        counts = expose(rng, 4000 * weak)
        known = average(stacked(counts, reference_vu=reference, reference_error_f=rings), GAIN)
        blind = average(stacked(counts, reference_vu=reference), GAIN)
        slopes.append(
            [np.sum(one.shift_vu * shifts) / np.sum(shifts**2) for _, one in (known, blind)]
        )
    assert np.mean(slopes, axis=0)[0] == pytest.approx(1.0, abs=0.07)
    assert np.mean(slopes, axis=0)[1] < 0.88


def test_aligned_repeats_are_sharp_and_their_variance_is_that_of_many(rng):
    """Repeats up to 1.6 pixels apart: the mean is the film where it is on average, not its blur."""
    shifts = np.array([[1.6, 0.0], [-1.6, 0.3], [0.4, -1.2], [-0.4, 0.9]])
    images = np.stack([300 * domains(*each) for each in shifts])
    rates, stated = [], []
    for _ in range(40):
        rate, findings = average(stacked(expose(rng, images)), GAIN)
        assert findings.aligned
        rates.append(rate.rate_vu / GAIN / 300)
        stated.append(rate.var_vu / GAIN**2 / 300**2)
    inside = np.s_[8:-8, 8:-8]
    mean = np.mean(rates, axis=0)[inside]
    scatter = np.var(rates, axis=0, ddof=1)[inside].mean()
    assert np.mean(stated, axis=0)[inside].mean() == pytest.approx(scatter, rel=0.06)
    error = np.std(mean - domains()[inside])
    blurred = np.std(images.mean(axis=0)[inside] / 300 - domains()[inside])
    assert error < 0.2 * blurred + np.sqrt(scatter / 40)


def test_shifts_that_do_not_matter_are_left(rng):
    counts = expose(rng, np.stack([9000 * domains(0.05, 0.0), 9000 * domains(-0.05, 0.0)]))
    rate, findings = average(stacked(counts), GAIN)
    assert not findings.aligned
    assert findings.shift_vu[0, 0] == pytest.approx(0.05, abs=0.02)
    np.testing.assert_allclose(rate.rate_vu, (counts - OFFSET).mean(axis=0), rtol=1e-6)


def test_zingers_are_counted_where_they_hit(rng):
    counts = expose(rng, np.full((4, *SHAPE), 200.0))
    counts[2, 10, 10:14] += 30000
    counts[0, 50, 50] += 20000
    _, findings = average(stacked(counts), GAIN)
    assert findings.zinger_pixels == (1, 0, 4, 0)


def test_of_two_repeats_a_zinger_is_the_brighter_one(rng):
    counts = expose(rng, np.full((2, *SHAPE), 200.0))
    counts[1, 10, 10] += 30000
    rate, findings = average(stacked(counts), GAIN)
    assert findings.zinger_pixels == (0, 1)
    assert rate.rate_vu[10, 10] == pytest.approx(counts[0, 10, 10] - OFFSET, rel=1e-4)


def test_a_pixel_whose_noise_saturation_cuts_is_left_out(rng):
    """Wells that are full at one standard deviation above the mean: the mean of the rest would be too low."""
    counts = expose(rng, np.full((6, *SHAPE), 200.0))
    level = OFFSET + GAIN * (200 + np.sqrt(200))
    rate, findings = average(stacked(np.minimum(counts, level), saturation_counts=level), GAIN)
    assert np.isnan(rate.rate_vu).mean() > 0.9
    assert min(findings.saturated_pixels) > 0.9 * counts[0].size


def test_long_exposures_may_be_full_where_short_ones_are_not(rng):
    dose = np.array([1.0, 1.0, 4.0, 4.0])
    counts = np.minimum(expose(rng, 100 * dose[:, None, None] * np.ones(SHAPE)), 15000.0)
    rate, findings = average(stack_of(counts, dark(), dose, saturation_counts=15000.0), GAIN)
    assert rate.rate_vu.mean() == pytest.approx(100 * GAIN, rel=0.01)
    assert findings.bad == ()
    assert findings.saturated_pixels[:2] == (0, 0)


def test_lagrange_taps_reproduce_polynomials():
    places = np.arange(-2.0, 3.0)
    for distance in (-0.5, -0.13, 0.0, 0.4):
        for power in range(5):
            assert lagrange_taps(distance) @ places**power == pytest.approx(
                distance**power, abs=1e-6
            )
