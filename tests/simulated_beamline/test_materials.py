"""Line shapes around the L edges: positions from the X-Ray Data Booklet, signs, limits."""

import numpy as np
import pytest

from mistral_txm.simulated_beamline import materials

RESOLVING_POWER = 2000.0
ENERGIES_EV = np.arange(690.0, 840.0, 0.1)


def mu_per_nm(material, energies_ev=ENERGIES_EV):
    return np.array(
        [materials.absorption_per_nm(material, float(e), RESOLVING_POWER) for e in energies_ev]
    )


def delta_per_nm(material, energies_ev=ENERGIES_EV, resolving_power=RESOLVING_POWER):
    return np.array(
        [materials.dichroism_per_nm(material, float(e), resolving_power) for e in energies_ev]
    )


@pytest.mark.parametrize(
    ("material", "l3_ev", "l2_ev"), [("Ni80Fe20", 707.4, 720.5), ("NdCo5", 778.1, 793.2)]
)
def test_absorption_peaks_at_both_edges_and_is_higher_beyond(material, l3_ev, l2_ev):
    mu = mu_per_nm(material)
    assert ENERGIES_EV[np.argmax(mu)] == pytest.approx(l3_ev, abs=0.2)
    about_l2 = np.abs(ENERGIES_EV - l2_ev) < 4
    assert ENERGIES_EV[about_l2][np.argmax(mu[about_l2])] == pytest.approx(l2_ev, abs=0.2)
    before, beyond = mu_per_nm(material, [l3_ev - 10.0, l2_ev + 15.0])
    assert beyond > before


@pytest.mark.parametrize(
    ("material", "l3_ev", "l2_ev"), [("Ni80Fe20", 707.4, 720.5), ("NdCo5", 778.1, 793.2)]
)
def test_dichroism_is_positive_at_l3_negative_at_l2_and_gone_between_the_elements(
    material, l3_ev, l2_ev
):
    delta = delta_per_nm(material)
    assert ENERGIES_EV[np.argmax(delta)] == pytest.approx(l3_ev, abs=0.1)
    assert ENERGIES_EV[np.argmin(delta)] == pytest.approx(l2_ev, abs=0.1)
    assert -0.6 < delta.min() / delta.max() < -0.3
    (between,) = delta_per_nm(material, [750.0])
    assert abs(between) < 0.01 * delta.max()


@pytest.mark.parametrize("material", sorted(materials.MAGNETIC))
def test_fully_circular_light_leaves_both_coefficients_positive(material):
    assert np.all(mu_per_nm(material) > np.abs(delta_per_nm(material)))


def test_films_of_the_experiment_transmit_20_to_60_percent():
    """80 nm permalloy, 80 nm NdCo5, 80 nm permalloy on 50 nm Si3N4, at the Fe L3 line."""
    absorbance = sum(
        length_nm * mu_per_nm(material, [707.4])[0]
        for material, length_nm in (("Ni80Fe20", 160), ("NdCo5", 80), ("Si3N4", 50))
    )
    assert 0.2 < np.exp(-absorbance) < 0.6


def test_only_what_holds_the_element_is_magnetic_at_its_edge():
    at_fe = materials.magnetic_at(707.4, RESOLVING_POWER)
    at_co = materials.magnetic_at(778.1, RESOLVING_POWER)
    assert "Ni80Fe20" in at_fe - at_co
    assert "NdCo5" in at_co - at_fe
    assert "Pt/CoFeB/MgO" in at_co & at_fe
    assert not materials.magnetic_at(650.0, RESOLVING_POWER)


def test_non_magnetic_materials_have_no_dichroism():
    for material in ("Au", "Si3N4"):
        assert material not in materials.MAGNETIC
        assert not delta_per_nm(material).any()


def test_a_coarser_monochromator_widens_the_line():
    """The full width of a Voigt line, after Olivero and Longbothum (1977), to 0.02 %."""
    for resolving_power in (400.0, 4000.0):
        delta = delta_per_nm("NdCo5", np.arange(774.0, 782.0, 0.01), resolving_power)
        width_ev = 0.01 * np.count_nonzero(delta > delta.max() / 2)
        gauss_ev, lorentz_ev = 778.1 / resolving_power, 1.4
        expected_ev = 0.5346 * lorentz_ev + np.sqrt(0.2166 * lorentz_ev**2 + gauss_ev**2)
        assert width_ev == pytest.approx(expected_ev, rel=0.03)


def test_an_unknown_material_is_refused():
    with pytest.raises(KeyError, match="Fe3O4"):
        materials.absorption_per_nm("Fe3O4", 707.4, RESOLVING_POWER)
