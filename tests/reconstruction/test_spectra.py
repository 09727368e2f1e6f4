"""Spectra against closed forms, Monte Carlo, and line shapes that the module does not use."""

import doctest

import numpy as np
import pytest
from scipy.special import erf, voigt_profile

from mistral_txm.reconstruction import spectra
from mistral_txm.reconstruction.frames import Rate, dark_level, mean_rate, measure_noise
from mistral_txm.reconstruction.geometry import InputError
from mistral_txm.reconstruction.spectra import (
    degree_ratio,
    domains,
    find_edge,
    isotropic,
    region_absorbance,
    spectrum,
    transmittance,
    xmcd,
)


def rate(value_vu, var=0.0):
    value = np.asarray(value_vu, float)
    return Rate(value, np.full(value.shape, var))


def test_absorbance_is_that_of_the_light_that_passes_the_region():
    # Twice the light on the left, where half of it passes; on the right a quarter passes.
    flat = rate([[2.0, 1.0], [5.0, 5.0]])
    sample = rate([[1.0, 0.25], [4.0, 4.0]])
    region = np.array([[True, True], [False, False]])
    assert region_absorbance(sample, flat, region)[0] == pytest.approx(np.log(3 / 1.25))


def test_unknown_pixels_count_neither_with_nor_without_the_sample():
    flat = rate(np.ones((2, 2)))
    sample = Rate(np.array([[0.5, np.nan], [0.5, 0.5]]), np.array([[0.0, np.inf], [0.0, 0.0]]))
    assert region_absorbance(sample, flat, np.ones((2, 2), bool))[0] == pytest.approx(np.log(2))
    with pytest.raises(InputError, match="no pixel of it is known"):
        region_absorbance(sample, flat, np.array([[False, True], [False, False]]))


def test_a_region_without_light_is_refused():
    with pytest.raises(InputError, match="is the shutter open"):
        region_absorbance(rate([[0.0]]), rate([[1.0]]), np.array([[True]]))


def test_standard_deviations_are_those_of_simulated_experiments():
    """Poisson photons, gain and read noise; 300 experiments of two helicities."""
    random = np.random.default_rng(1)
    gain, read_counts, photons = 120.0, 6.0, 150.0
    passed = {1: 0.30, -1: 0.45}
    region = np.ones((10, 10), bool)

    def frames(mean, count):
        light = gain * random.poisson(mean, (count, 10, 10))
        return 300 + light + random.normal(0, read_counts, light.shape)

    found = []
    for _ in range(300):
        dark = dark_level(frames(0.0, 5))
        of_helicity = {}
        for helicity, through in passed.items():
            flats, sample = frames(photons, 4), frames(photons * through, 3)
            dose = np.ones(4)
            measured = measure_noise(flats, dark, dose)
            value, var = region_absorbance(
                mean_rate(sample, dark, dose[:3], measured),
                mean_rate(flats, dark, dose, measured),
                region,
            )
            of_helicity[helicity] = spectrum([707.4], [value], [var])
        difference = xmcd(of_helicity[1], of_helicity[-1])
        found.append((difference.value_e[0], difference.std_e[0]))
    values, stds = np.array(found).T
    assert values.std() == pytest.approx(stds.mean(), rel=0.13)
    assert values.mean() == pytest.approx(np.log(0.45 / 0.30), abs=4 * values.std() / np.sqrt(300))


def test_spectra_are_sorted_and_combined_energy_by_energy():
    plus = spectrum([708.0, 707.0], [0.5, 1.5], [0.04, 0.09])
    minus = spectrum([707.0, 708.0], [0.5, 0.5], [0.16, 0.0])
    assert xmcd(plus, minus).value_e.tolist() == [1.0, 0.0]
    assert xmcd(plus, minus).std_e == pytest.approx([0.5, 0.2])
    assert isotropic(plus, minus).value_e.tolist() == [1.0, 0.5]
    assert isotropic(plus, minus).std_e == pytest.approx([0.25, 0.1])
    passed = transmittance(plus)
    assert passed.value_e == pytest.approx(np.exp([-1.5, -0.5]))
    assert passed.std_e == pytest.approx([0.3 * np.exp(-1.5), 0.2 * np.exp(-0.5)])


def test_energies_that_do_not_fit_together_are_refused():
    one, other = spectrum([707.0], [1.0], [0.0]), spectrum([708.0], [1.0], [0.0])
    with pytest.raises(InputError, match="expected the same"):
        xmcd(one, other)
    with pytest.raises(InputError, match="an energy comes twice"):
        spectrum([707.0, 707.0], [1.0, 1.0], [0.0, 0.0])
    with pytest.raises(InputError, match="expected one each"):
        spectrum([707.0], [1.0, 1.0], [0.0, 0.0])


def edge_of(energies_ev, centre_ev):
    """A Voigt line on an error-function step: other shapes than those of the fit."""
    line = voigt_profile(energies_ev - centre_ev, 0.15, 0.7)
    return 0.4 + 0.05 * (1 + erf(energies_ev - centre_ev)) + 1.2 * line


@pytest.mark.parametrize("centre_ev", [707.2, 707.4, 707.63])
def test_the_edge_is_found_with_its_standard_deviation(centre_ev):
    energies_ev = np.arange(702.0, 713.1, 0.5)
    random = np.random.default_rng(2)
    errors_ev, stds_ev = [], []
    for _ in range(60):
        noisy = edge_of(energies_ev, centre_ev) + random.normal(0, 0.02, energies_ev.shape)
        edge = find_edge(spectrum(energies_ev, noisy, np.full(energies_ev.shape, 0.02**2)))
        errors_ev.append(edge.energy_ev - centre_ev)
        stds_ev.append(edge.std_ev)
    assert np.std(errors_ev) == pytest.approx(np.mean(stds_ev), rel=0.3)
    # The other shape of the step moves the line a little.
    assert abs(np.mean(errors_ev)) < 0.03


def test_of_two_edges_the_stronger_one_is_found():
    energies_ev = np.arange(700.0, 728.1, 0.5)
    both = edge_of(energies_ev, 707.4) + edge_of(energies_ev, 720.5) / 3
    edge = find_edge(spectrum(energies_ev, both, np.full(energies_ev.shape, 1e-6)))
    assert edge.energy_ev == pytest.approx(707.4, abs=0.05)


NO_EDGE = [
    (np.arange(700.0, 707.0, 0.5), "the end of the range; measure beyond it"),
    (np.array([690.0, 707.4, 707.9, 720.0]), "at least 6 are needed"),
]


@pytest.mark.parametrize(("energies_ev", "expected"), NO_EDGE)
def test_what_is_no_edge_is_refused(energies_ev, expected):
    values = edge_of(energies_ev, 707.4)
    with pytest.raises(InputError, match=expected):
        find_edge(spectrum(energies_ev, values, np.full(energies_ev.shape, 1e-4)))


def test_domains_are_where_the_signal_is_far_from_zero():
    random = np.random.default_rng(3)
    u = np.arange(120)
    stripes = 0.2 * np.sign(np.sin(2 * np.pi * (u + 0.5) / 40)) * np.ones((80, 1))
    noisy = stripes + random.normal(0, 0.1, stripes.shape)
    noisy[3, 5] = np.nan
    found = domains(noisy, np.full(stripes.shape, 0.1))
    assert set(found) == {1, -1}
    for sign, region in found.items():
        assert (np.sign(stripes[region]) == sign).mean() > 0.99
        assert 0.3 < region.mean() < 0.5
    assert set(domains(np.abs(noisy), np.full(stripes.shape, 0.1))) == {1}
    assert domains(random.normal(0, 0.1, (80, 80)), np.full((80, 80), 0.1)) == {}


@pytest.mark.parametrize("degree", [-1.2, -0.3, 0.0, 1.0])
def test_the_degree_and_its_variance_are_those_of_simulated_experiments(degree):
    random = np.random.default_rng(4)
    truth = np.array([0.7 + 0.2 * degree, 0.9, 0.5])
    std = np.array([0.010, 0.004, 0.006])
    found = np.array(
        [
            degree_ratio(*zip(values, std**2, strict=True))
            for values in truth + random.normal(0, std, (3000, 3))
        ]
    )
    assert found[:, 0].mean() == pytest.approx(degree, abs=0.005)
    assert found[:, 0].std() == pytest.approx(np.sqrt(found[:, 1].mean()), rel=0.06)


def test_a_sample_without_dichroism_tells_no_degree():
    with pytest.raises(InputError, match="too weak to compare with"):
        degree_ratio((0.5, 1e-4), (0.51, 1e-4), (0.5, 1e-4))


def test_examples():
    result = doctest.testmod(spectra)
    assert (result.attempted > 0, result.failed) == (True, 0)
