import doctest

import numpy as np
import pytest
import scipy.ndimage

from mistral_txm.reconstruction import overlay
from mistral_txm.reconstruction.overlay import Faded, laid_over

SIZE = 96


def test_examples():
    assert doctest.testmod(overlay).failed == 0


def grains(seed):
    return scipy.ndimage.gaussian_filter(
        np.random.default_rng(seed).normal(size=(200, 200)), 3, mode="wrap"
    )


def faded(film, y, x):
    """A field of view at (y, x) of a film, fading over a quarter."""
    ramp = np.clip(np.minimum(np.arange(SIZE) + 1, SIZE - np.arange(SIZE)) / (SIZE / 4), 0, 1)
    weight = np.outer(ramp, ramp)
    cut = film[y : y + SIZE, x : x + SIZE]
    return Faded((cut - np.average(cut, weights=weight)) * weight, weight)


@pytest.mark.parametrize("move", [(0, 0), (7, -12), (-30, 21)])
def test_what_the_film_shows_is_found_where_it_is_and_nowhere_else(move):
    film = grains(0)
    best, elsewhere, displaced = laid_over(
        faded(film, 50, 50), faded(film, 50 - move[0], 50 - move[1])
    )
    np.testing.assert_array_equal(displaced, move)
    # not quite 1: the means of the two fields of view differ
    assert 0.85 < best < 1.001
    assert elsewhere < 0.8 * best


def test_a_lattice_lies_over_itself_at_many_places_however_little_overlaps():
    y, x = np.mgrid[:200, :200] * (2 * np.pi / 20)
    lattice = np.cos(x) + np.cos(x / 2 + y * np.sqrt(0.75)) + np.cos(x / 2 - y * np.sqrt(0.75))
    best, elsewhere, _ = laid_over(faded(lattice, 50, 50), faded(lattice, 53, 45))
    assert elsewhere > 0.97 * best
    with_grains = lattice + 3 * grains(1) / grains(1).std()
    best, elsewhere, displaced = laid_over(faded(with_grains, 50, 50), faded(with_grains, 53, 45))
    np.testing.assert_array_equal(displaced, (-3, 5))
    assert elsewhere < 0.8 * best


def test_different_films_do_not_correlate():
    best, _, _ = laid_over(faded(grains(2), 50, 50), faded(grains(3), 50, 50))
    assert best < 0.6
