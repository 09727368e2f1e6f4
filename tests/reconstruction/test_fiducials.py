import doctest

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mistral_txm.reconstruction import InputError, fiducials
from mistral_txm.reconstruction.fiducials import fiducial_mask, find_fiducials

PIXEL_NM = 10.5
GOLD_PER_NM = 0.011


def absorption(
    rng, centres_vu_nm, radius_nm, n=192, *, blur=1.2, photons=12000.0, disc_pixels=0, film=0.9
):
    """Photons behind spheres on a film that is not quite even, by their chords; disc_pixels: out of focus."""
    fine = 4
    at = (np.arange(n * fine) - (n * fine - 1) / 2) * PIXEL_NM / fine
    path = np.zeros((n * fine, n * fine))
    for (v, u), r in zip(
        centres_vu_nm, np.broadcast_to(radius_nm, len(centres_vu_nm)), strict=True
    ):
        i, j = np.flatnonzero(abs(at - v) < r), np.flatnonzero(abs(at - u) < r)
        square = r**2 - (at[i, None] - v) ** 2 - (at[None, j] - u) ** 2
        path[np.ix_(i, j)] += 2 * np.sqrt(np.maximum(square, 0))
    light = np.exp(-GOLD_PER_NM * path).reshape(n, fine, n, fine).mean(axis=(1, 3))
    light = gaussian_filter(light, blur)
    if disc_pixels:
        k = np.arange(-disc_pixels, disc_pixels + 1)
        disc = (k[:, None] ** 2 + k[None] ** 2 <= disc_pixels**2).astype(float)
        padded = np.pad(light, disc_pixels, mode="edge")
        light = sum(
            weight * padded[i : i + n, j : j + n] for (i, j), weight in np.ndenumerate(disc)
        ) / disc.sum()  # fmt: skip
    x = np.linspace(-1, 1, n)
    light *= np.exp(-film * (1 + 0.05 * np.sin(3 * x)[:, None] + 0.06 * x[None] ** 2))
    if photons is None:
        return -np.log(light)
    return -np.log(np.maximum(rng.poisson(light * photons), 1) / photons)


def scattered(rng, count, n=192, apart_nm=400.0):
    half = (n / 2 - 20) * PIXEL_NM
    centres = []
    while len(centres) < count:
        one = rng.uniform(-half, half, 2)
        if all(np.hypot(*(one - other)) > apart_nm for other in centres):
            centres.append(one)
    return np.array(centres)


def matched(found, centres):
    """Numbers of found spheres in the order of the true ones; all have to be found, and no other."""
    distance = np.hypot(*(found.position_vu_nm[None] - centres[:, None]).transpose(2, 0, 1))
    assert distance.shape == (len(centres), len(centres))
    assert distance.min(axis=1).max() < 60
    return distance.argmin(axis=1)


def test_examples():
    assert doctest.testmod(fiducials).failed == 0


def test_centres_without_noise_are_those_of_the_spheres():
    rng = np.random.default_rng(0)
    centres = scattered(rng, 6)
    radius_nm = np.array([45, 50, 55, 48, 52, 50])
    found = find_fiducials(absorption(rng, centres, radius_nm, photons=None), PIXEL_NM)
    order = matched(found, centres)
    assert np.abs(found.position_vu_nm[order] - centres).max() < 0.02 * PIXEL_NM
    # Half of the longest chord is at sqrt(3) / 2 of the radius; the blur makes the disc's middle flatter.
    np.testing.assert_allclose(found.radius_nm[order], np.sqrt(3) / 2 * radius_nm, rtol=0.2)


@pytest.mark.parametrize(("photons", "std_pixels"), [(12000.0, 0.03), (400.0, 0.15)])
def test_scatter_is_what_the_standard_deviations_say(photons, std_pixels):
    """Averaged exposures of both helicities, and a single one."""
    rng = np.random.default_rng(1)
    sigma, off = [], []
    for _ in range(5):
        centres = scattered(rng, 6)
        found = find_fiducials(absorption(rng, centres, 50.0, photons=photons), PIXEL_NM)
        order = matched(found, centres)
        off.append(found.position_vu_nm[order] - centres)
        sigma.append(found.std_vu_nm[order])
    assert np.std(off) < std_pixels * PIXEL_NM
    assert 0.75 < np.std(np.divide(off, sigma)) < 1.4


def test_spheres_out_of_focus_are_found_and_centred():
    rng = np.random.default_rng(2)
    centres = scattered(rng, 4, apart_nm=700.0)
    found = find_fiducials(absorption(rng, centres, 50.0, disc_pixels=8), PIXEL_NM)
    order = matched(found, centres)
    off = found.position_vu_nm[order] - centres
    assert np.std(off) < 0.15 * PIXEL_NM
    assert found.radius_nm.min() > 60


def test_no_sphere_is_made_of_film_and_noise():
    rng = np.random.default_rng(3)
    assert len(find_fiducials(absorption(rng, [], 50.0), PIXEL_NM)) == 0
    assert len(find_fiducials(np.zeros((64, 64)), PIXEL_NM)) == 0


def test_touching_spheres_and_those_cut_by_the_border_are_left_out():
    rng = np.random.default_rng(4)
    border = 191 / 2 * PIXEL_NM
    centres = np.array([[0.0, 0.0], [20.0, 80.0], [500.0, -border + 5], [-500.0, 300.0]])
    found = find_fiducials(absorption(rng, centres, 50.0), PIXEL_NM)
    good = np.hypot(*(found.position_vu_nm - centres[3]).T) < 1.0
    assert good.sum() == 1
    assert len(found) <= 2


def test_masked_pixels_do_not_pull():
    rng = np.random.default_rng(5)
    centres = np.array([[100.0, -200.0]])
    image = absorption(rng, centres, 50.0)
    v, u = (round(c / PIXEL_NM + 191 / 2) for c in centres[0])
    image[v + 2, u - 1] = np.nan
    image[v - 4, u + 3] = np.nan
    image[40, 40] = np.nan
    found = find_fiducials(image, PIXEL_NM)
    assert len(found) == 1
    assert np.abs(found.position_vu_nm[0] - centres[0]).max() < 0.08 * PIXEL_NM


def test_mask_covers_the_disc_and_spheres_beyond_the_border():
    mask = fiducial_mask((40, 50), [[0.0, 0.0], [0.0, 275.0]], [50.0, 50.0], 10.0)
    v, u = np.meshgrid(np.arange(40) * 10 - 195.0, np.arange(50) * 10 - 245.0, indexing="ij")
    expected = (np.hypot(v, u) <= 85) | (np.hypot(v, u - 275.0) <= 85)
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    ("image", "pixel_nm", "words"),
    [(np.zeros((3, 20, 20)), 10.5, "expected (v, u)"), (np.zeros((20, 20)), 42.0, "binned less"),
     (np.full((20, 20), np.nan), 10.5, "leave this view out")],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_one_line(image, pixel_nm, words):
    with pytest.raises(InputError) as refusal:
        find_fiducials(image, pixel_nm)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
