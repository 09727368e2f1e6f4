import doctest

import numpy as np
import pytest

from mistral_txm.reconstruction import InputError, image_shift
from mistral_txm.reconstruction.image_shift import NoCommonStructureError
from mistral_txm.reconstruction.image_shift import image_shift as find_shift

N = 128


def spots(rng, count=12, width=4.0):
    return rng.uniform(-50, 50, (count, 2)), rng.uniform(0.2, 0.6, count), width


def light(scene, shift_vu=(0.0, 0.0)):
    """Transmittance of a film with soft spots, displaced in closed form."""
    at = np.arange(N) - (N - 1) / 2
    centres, depths, width = scene
    a = np.full((N, N), 0.9)
    for (v, u), depth in zip(centres, depths, strict=True):
        a += depth * np.outer(
            np.exp(-((at - v - shift_vu[0]) ** 2) / 2 / width**2),
            np.exp(-((at - u - shift_vu[1]) ** 2) / 2 / width**2),
        )
    return np.exp(-a)


def exposed(rng, transmittance, photons):
    return np.sqrt(rng.poisson(photons * transmittance) / photons)


def test_examples():
    assert doctest.testmod(image_shift).failed == 0


@pytest.mark.parametrize(
    "shift_vu", [(0.0, 0.0), (0.3, -0.7), (-2.45, 1.2), (9.5, -14.25), (-31.0, 25.5)]
)
def test_known_shifts_without_noise(shift_vu):
    scene = spots(np.random.default_rng(0))
    found = find_shift(light(scene), light(scene, shift_vu))
    np.testing.assert_allclose(found.shift_vu, shift_vu, atol=0.02)


@pytest.mark.parametrize("photons", [400.0, 6000.0])
def test_scatter_is_what_the_standard_deviation_says(photons):
    rng = np.random.default_rng(1)
    off, sigma = [], []
    for _ in range(20):
        scene, shift = spots(rng), rng.uniform(-3, 3, 2)
        found = find_shift(
            exposed(rng, light(scene), photons), exposed(rng, light(scene, shift), photons)
        )
        off.append(found.shift_vu - shift)
        sigma.append(found.std_vu)
    # 40 numbers: their standard deviation is known to 11 %.
    assert 0.75 < np.std(np.divide(off, sigma)) < 1.35
    assert np.abs(np.mean(off)) < 4 * np.std(off) / np.sqrt(40)
    assert np.std(off) < 2.5 / np.sqrt(photons)


def test_masked_pixels_are_allowed():
    scene = spots(np.random.default_rng(3))
    image = light(scene, (1.5, 0.5))
    image[30:33, 40:42] = np.nan
    np.testing.assert_allclose(find_shift(light(scene), image).shift_vu, (1.5, 0.5), atol=0.05)


def test_noise_alone_has_no_shift():
    rng = np.random.default_rng(4)
    with pytest.raises(NoCommonStructureError, match="average more"):
        find_shift(rng.normal(size=(64, 64)), rng.normal(size=(64, 64)))


@pytest.mark.parametrize(
    ("reference", "image", "words"),
    [(np.ones((32, 32)), np.ones((32, 31)), "expected the same"), (np.ones(32), np.ones(32), "expected (v, u)"),
     (np.full((32, 32), np.nan), np.ones((32, 32)), "every pixel is masked")],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(reference, image, words):
    with pytest.raises(InputError) as refusal:
        find_shift(reference, image)
    assert words in str(refusal.value)
