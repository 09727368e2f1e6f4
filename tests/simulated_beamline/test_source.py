"""The bending magnet against formulas that the module does not use."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import kv

from mistral_txm.simulated_beamline import source


def test_critical_energy_is_that_of_the_alba_dipole():
    assert pytest.approx(8380, abs=10) == source.CRITICAL_ENERGY_EV


def test_flux_integrated_over_all_angles_follows_the_universal_function():
    """The vertical integral is proportional to y * integral of K_5/3 from y, for every energy."""
    angles_mrad = np.linspace(-4, 4, 8001)
    ratios = []
    for energy_ev in (400.0, 707.4, 1500.0, 4000.0):
        in_plane, across = source.amplitudes(energy_ev, angles_mrad)
        integral = np.trapezoid(in_plane**2 + across**2, angles_mrad)
        y = energy_ev / source.CRITICAL_ENERGY_EV
        universal = y * quad(lambda t: kv(5 / 3, t), y, 60, limit=200)[0]
        ratios.append(integral / universal)
    assert np.ptp(ratios) / np.mean(ratios) < 2e-3


def test_seven_eighths_of_the_power_are_polarized_in_the_orbit_plane():
    """Integrated over angle and energy; a classic of synchrotron radiation."""
    angles_mrad = np.linspace(-3, 3, 1501)
    energies_ev = np.geomspace(1, 2e5, 400)
    parts = [np.zeros_like(energies_ev), np.zeros_like(energies_ev)]
    for index, energy_ev in enumerate(energies_ev):
        for part, amplitude in zip(parts, source.amplitudes(energy_ev, angles_mrad), strict=True):
            part[index] = np.trapezoid(amplitude**2, angles_mrad)
    in_plane, across = (np.trapezoid(part, energies_ev) for part in parts)
    assert in_plane / (in_plane + across) == pytest.approx(7 / 8, abs=2e-3)


def test_circular_degree_changes_sign_across_the_orbit_plane():
    above, below = (source.accepted(707.4, *jaws) for jaws in ((1.5, 2.5), (-2.5, -1.5)))
    assert above[1] == pytest.approx(0.80, abs=0.02)
    assert below == (pytest.approx(above[0]), pytest.approx(-above[1]))
    assert source.accepted(707.4, -1.0, 1.0)[1] == pytest.approx(0, abs=1e-12)


def test_intensity_grows_with_the_opening_and_vanishes_without_one():
    intensities = [source.accepted(707.4, 2.0 - half, 2.0 + half)[0] for half in (0.25, 0.5, 1.0)]
    assert intensities == sorted(intensities)
    assert source.accepted(707.4, 2.0, 2.0) == (0.0, 0.0)


def test_current_decays_and_is_topped_up():
    before, after = (source.ring_current_ma(source.TOP_UP_PERIOD_S + s) for s in (-1e-6, 1e-6))
    assert source.ring_current_ma(600.0) < source.ring_current_ma(0.0)
    assert before == pytest.approx(source.CURRENT_MA * np.exp(-1200 / source.LIFETIME_S))
    assert after == pytest.approx(source.CURRENT_MA)
