"""The ring and its bending magnet against formulas that the module does not use."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import kv

from mistral_txm.simulated_beamline import source
from mistral_txm.simulated_beamline.settings import load_settings

IDEAL = load_settings("ideal")
RING = IDEAL.ring.model_copy(
    update={"current_ma": 200.0, "lifetime_h": 1.0, "top_up_period_s": 900.0}
)


@pytest.fixture(scope="module")
def magnet():
    return source.BendingMagnet(IDEAL.ring, IDEAL.beam)


def test_critical_energy_is_that_of_the_alba_dipole():
    assert source.critical_energy_ev(IDEAL.ring) == pytest.approx(8380, abs=10)


def test_flux_integrated_over_all_angles_follows_the_universal_function(magnet):
    """The vertical integral is proportional to y * integral of K_5/3 from y, for every energy."""
    ratios = []
    for energy_ev in (400.0, 707.4, 1500.0, 4000.0):
        on_axis = source.amplitudes(IDEAL.ring, energy_ev, np.zeros(1))[0][0] ** 2
        integral = magnet.accepted(energy_ev, -60.0, 60.0)[0] * on_axis
        y = energy_ev / source.critical_energy_ev(IDEAL.ring)
        universal = y * quad(lambda t: kv(5 / 3, t), y, 60, limit=200)[0]
        ratios.append(integral / universal)
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def test_seven_eighths_of_the_power_are_polarized_in_the_orbit_plane():
    """Integrated over angle and energy; a classic of synchrotron radiation."""
    angles_mrad = np.linspace(-3, 3, 1501)
    energies_ev = np.geomspace(1, 2e5, 400)
    parts = [np.zeros_like(energies_ev), np.zeros_like(energies_ev)]
    for index, energy_ev in enumerate(energies_ev):
        amplitudes = source.amplitudes(IDEAL.ring, energy_ev, angles_mrad)
        for part, amplitude in zip(parts, amplitudes, strict=True):
            part[index] = np.trapezoid(amplitude**2, angles_mrad)
    in_plane, across = (np.trapezoid(part, energies_ev) for part in parts)
    assert in_plane / (in_plane + across) == pytest.approx(7 / 8, abs=2e-3)


def test_soft_light_far_off_the_orbit_plane_becomes_circular():
    """K_1/3 and K_2/3 approach each other for large arguments: the degree goes to 1."""
    in_plane, across = source.amplitudes(IDEAL.ring, 707.4, np.array([1.0]))
    assert in_plane[0] == pytest.approx(across[0], rel=0.05)


def test_circular_degree_is_odd_in_the_angle_and_the_intensity_even(magnet):
    for low, high in ((0.0, 0.5), (1.5, 2.5), (1.9, 2.1), (3.0, 6.0)):
        above, below = magnet.accepted(707.4, low, high), magnet.accepted(707.4, -high, -low)
        assert 0 < above[1] < 1
        assert below == (pytest.approx(above[0]), pytest.approx(-above[1]))
    assert magnet.accepted(707.4, -1.0, 1.0)[1] == pytest.approx(0, abs=1e-12)


def test_circular_degree_grows_with_the_angle(magnet):
    degrees = [
        magnet.accepted(707.4, middle - 0.25, middle + 0.25)[1] for middle in np.arange(-6, 6.1)
    ]
    assert np.all(np.diff(degrees) > 0)


def test_published_slit_selects_four_fifths_of_circular_light(magnet):
    assert magnet.accepted(707.4, 1.5, 2.5)[1] == pytest.approx(0.80, abs=0.02)


def test_intensities_of_two_halves_of_a_slit_add(magnet):
    halves = magnet.accepted(707.4, 1.5, 2.2)[0] + magnet.accepted(707.4, 2.2, 2.5)[0]
    assert halves == pytest.approx(magnet.accepted(707.4, 1.5, 2.5)[0], rel=1e-4)


@pytest.mark.parametrize("jaws_mm", [(2.0, 2.0), (2.5, 1.5), (300.0, 400.0), (-400.0, -300.0)])
def test_no_light_through_closed_jaws_nor_far_from_the_orbit_plane(magnet, jaws_mm):
    assert magnet.accepted(707.4, *jaws_mm) == (0.0, 0.0)


def test_angle_is_that_of_the_middle_of_the_slit(magnet):
    assert magnet.angle_mrad(-2.5, -1.5) == pytest.approx(-0.2)


def test_current_decays_and_is_topped_up():
    ring = source.Ring(RING)
    assert ring.current_ma(0.0) == 200.0
    assert ring.current_ma(900.0 - 1e-6) == pytest.approx(200 * math.exp(-0.25))
    assert ring.current_ma(900.0) == 200.0
    assert ring.to_injection_s(0.0) == 900.0
    assert ring.to_injection_s(1000.0) == 800.0


@pytest.mark.parametrize(
    ("start_s", "duration_s"), [(10.0, 8.0), (895.0, 20.0), (1e6, 0.01), (100.0, 2500.0)]
)
def test_mean_current_is_that_of_many_moments(start_s, duration_s):
    ring = source.Ring(RING)
    moments_s = start_s + (np.arange(20000) + 0.5) * duration_s / 20000
    mean_ma = np.mean([ring.current_ma(moment_s) for moment_s in moments_s])
    assert ring.mean_current_ma(start_s, duration_s) == pytest.approx(mean_ma, rel=1e-5)


def test_mean_current_of_no_time_is_that_of_the_moment():
    ring = source.Ring(RING)
    assert ring.mean_current_ma(450.0, 0.0) == ring.current_ma(450.0)
    assert ring.mean_current_ma(450.0, 1e-6) == pytest.approx(ring.current_ma(450.0))
