"""Line shapes around the Fe L edges."""

import numpy as np

from mistral_txm.simulated_beamline import materials


def test_permalloy_absorbs_most_at_the_l3_line():
    energies_ev = np.arange(695.0, 735.0, 0.1)
    mu = [materials.absorption_per_nm("Ni80Fe20", energy) for energy in energies_ev]
    assert abs(energies_ev[int(np.argmax(mu))] - 707.4) < 0.3
    assert 0.004 < max(mu) < 0.006
    assert mu[-1] > mu[0]


def test_dichroism_is_positive_at_l3_negative_at_l2_and_gone_before_the_edge():
    at_l3, at_l2, before = (materials.dichroism_per_nm(e) for e in (707.4, 720.5, 690.0))
    assert 0.0020 < at_l3 < 0.0024
    assert at_l2 < -0.0005
    assert abs(before) < 0.02 * at_l3


def test_line_of_full_circular_light_leaves_both_coefficients_positive():
    for energy_ev in np.arange(690.0, 740.0, 0.5):
        mu = materials.absorption_per_nm("Ni80Fe20", energy_ev)
        assert mu > abs(materials.dichroism_per_nm(energy_ev))
