"""What views tell of a film, against drawing the film, its views and its solution many times."""

import numpy as np
import pytest

from mistral_txm.reconstruction.design import (
    Power,
    Slabs,
    ViewFacts,
    design,
    measured_power,
    view_spectrum,
)

Q = np.geomspace(0.004, 0.3, 40)
LAYERS = [(-120.0, -40.0), (40.0, 120.0)]
TILTS = np.arange(-55.0, 56.0, 10.0)


def power(scale=1.0):
    return Power(Q, scale * 1e-4 * (0.01**2 + Q**2) ** -1.5, np.zeros(len(Q)))


def views(std, *azimuths_deg):
    return [ViewFacts(phi, theta, std) for phi in azimuths_deg for theta in TILTS]


def test_the_known_part_is_that_of_drawn_films():
    """Fields drawn from the prior, seen and solved at one frequency, leave what the model says."""
    slabs, facts = Slabs.of([(-60.0, 60.0)]), views(30.0, 0.0, 102.0)
    found = design(facts, slabs, power(), 40.0)
    number = 8
    q = found.q_per_nm[number]
    rng = np.random.default_rng(0)
    correlation = (1 + (a := np.hypot(0.005, q) * abs(slabs.z_nm[:, None] - slabs.z_nm))) * np.exp(
        -a
    )
    root = np.linalg.cholesky(power().prior(q) * correlation + 1e-12 * np.eye(len(a)))
    drawn, left = 0.0, 0.0
    for direction in (np.arange(4) + 0.5) * np.pi / 4:
        rows, noise = [], []
        for one in facts:
            t, phi = np.tan(np.deg2rad(one.theta_deg)), np.deg2rad(one.phi_deg)
            shear = t * q * np.cos(direction + phi)
            # the integral over each slab, by hand
            edges = np.linspace(-60.0, 60.0, len(slabs.z_nm) + 1)
            if abs(shear) > 1e-9:
                wave = np.diff(np.exp(1j * shear * edges)) / (1j * shear)
            else:
                wave = np.diff(edges).astype(complex)
            w = np.array([t * np.cos(phi), -t * np.sin(phi), 1.0])
            rows.append(np.kron(w, wave))
            noise.append(one.std**2 * np.hypot(1, t))
        a, noise = np.array(rows), np.array(noise)
        prior = np.kron(np.eye(3), root @ root.T)
        gain = prior @ a.conj().T @ np.linalg.inv(a @ prior @ a.conj().T + np.diag(noise))
        shape = (3, len(slabs.z_nm), 400)
        field = (root @ ((rng.normal(size=shape) + 1j * rng.normal(size=shape)) / 2**0.5)).reshape(
            -1, 400
        )
        size = (len(noise), 400)
        error = np.sqrt(noise / 2)[:, None] * (rng.normal(size=size) + 1j * rng.normal(size=size))
        drawn += np.sum(abs(field) ** 2)
        left += np.sum(abs(field - gain @ (a @ field + error)) ** 2)
    assert found.known[number] == pytest.approx(1 - left / drawn, abs=0.03)


def test_more_light_and_a_second_azimuth_resolve_finer():
    def resolution_nm(std, *azimuths_deg):
        return design(views(std, *azimuths_deg), Slabs.of(LAYERS), power(), 25.0).resolution_nm

    assert resolution_nm(10.0, 0.0, 102.0) < resolution_nm(20.0, 0.0, 102.0)
    assert resolution_nm(20.0, 0.0, 102.0) < resolution_nm(20.0, 0.0)
    assert resolution_nm(1e9, 0.0) == np.inf


def test_the_gain_of_a_view_is_what_it_takes_of_what_is_left():
    slabs, facts = Slabs.of(LAYERS), views(30.0, 0.0)
    before = design(facts, slabs, power(), 25.0)
    more = ViewFacts(102.0, 30.0, 30.0)
    after = design([*facts, more], slabs, power(), 25.0)
    expected = 1 - after.total_left / before.total_left
    assert before.gains([more])[0] == pytest.approx(expected, rel=1e-6)


def test_an_azimuth_that_was_not_measured_tells_more_than_the_same_once_more():
    before = design(views(10.0, 0.0), Slabs.of(LAYERS), power(), 25.0)
    same, other = before.gains([ViewFacts(0.0, 45.0, 10.0), ViewFacts(90.0, 45.0, 10.0)])
    assert other > 3 * same


@pytest.mark.parametrize("theta_deg", [0.0, 50.0])
def test_white_noise_has_the_power_that_is_expected_of_it(theta_deg):
    rng = np.random.default_rng(1)
    found = [view_spectrum(rng.normal(0, 0.02, (128, 128)), theta_deg, 10.5) for _ in range(8)]
    total = np.mean([np.average(one.power, weights=one.count) for one in found])
    # Of one image it scatters by 2.5 %.
    assert total == pytest.approx(0.02**2 / np.cos(np.deg2rad(theta_deg)), rel=0.03)


def test_views_of_noise_alone_show_no_field():
    rng = np.random.default_rng(2)
    facts, spectra = views(0.02, 0.0), []
    for one in facts:
        spectra.append(view_spectrum(rng.normal(0, 0.02, (96, 96)), one.theta_deg, 10.5))
    found = measured_power(facts, spectra, Slabs.of(LAYERS))
    assert design(facts, Slabs.of(LAYERS), found, 25.0).resolution_nm > 250
