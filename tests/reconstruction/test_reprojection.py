"""Shifts from what a film shows, on grains and magnetized balls whose projections are written out by hand."""

import doctest

import numpy as np
import pytest

from mistral_txm.reconstruction import InputError, TiltSeries, binning
from mistral_txm.reconstruction.binning import binned, centre_moved_pixels
from mistral_txm.reconstruction.neighbours import Contrast, neighbour_shifts, prepared
from mistral_txm.reconstruction.placing import place_views
from mistral_txm.reconstruction.reprojection import refine_shifts
from tests.reconstruction.grains import PIXEL_NM, TILTS, N, grains, measured, projection

SLAB_NM = ((-150.0, 150.0),)


def errors_pixels(found, true, phis):
    """Errors of all shifts modulo one move of the whole sample, pixels."""
    matrices = np.concatenate([[projection(t, phi)[:2] for t in TILTS] for phi in phis])
    off = np.concatenate([f - t for f, t in zip(found, true, strict=True)])
    move = np.linalg.lstsq(matrices.reshape(-1, 3), off.ravel())[0]
    return (off - matrices @ move) / PIXEL_NM


def rms(errors):
    return np.sqrt(np.mean(errors**2))


def test_binning_keeps_places():
    image = np.zeros((7, 8))
    image[3, 4] = 4.0
    np.testing.assert_array_equal(binned(image, 2)[1], [0, 0, 1, 0])
    # The pixel (3, 4) is 0 below and 0.5 right of the middle, the binned one (1, 2) 0 and 0.5 of its own.
    assert centre_moved_pixels(image.shape, 2).tolist() == [-0.5, 0.0]


def test_examples_of_binning():
    assert doctest.testmod(binning).failed == 0


def test_neighbours_find_large_shifts_roughly():
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 100, (len(TILTS), 2))
    series = prepared(measured(rng, grains(rng), 0.0, shifts), 1)
    found = neighbour_shifts([series], PIXEL_NM)
    assert rms(errors_pixels([np.zeros_like(shifts)], [shifts], [0.0])) > 6
    assert rms(errors_pixels([found], [shifts], [0.0])) < 1.5


def test_neighbours_are_found_by_the_contrast_that_shows_something():
    rng = np.random.default_rng(0)
    shifts = rng.normal(0, 40, (len(TILTS), 2))
    shows = prepared(measured(rng, grains(rng), 0.0, shifts), 1)
    empty = TiltSeries(0.0, TILTS, rng.normal(0, 0.01, (len(TILTS), N, N)))
    found = neighbour_shifts([empty, shows], PIXEL_NM)
    assert rms(errors_pixels([found], [shifts], [0.0])) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("magnetic", [False, True])
def test_two_series_mounted_apart_with_a_misstated_azimuth(magnetic):
    rng = np.random.default_rng(1)
    film = grains(rng)
    true = [rng.normal(0, 40, (len(TILTS), 2)) + np.array(k) for k in ([0.0, 0.0], [120.0, -170.0])]
    phis = (0.0, 100.7)
    series = tuple(
        measured(rng, film, phi, s, magnetic=magnetic, stated_deg=stated)
        for phi, s, stated in zip(phis, true, (0.0, 102.0), strict=True)
    )
    result = refine_shifts([Contrast(series, SLAB_NM, scalar=not magnetic)], PIXEL_NM)
    errors = errors_pixels(result.shift_vu_nm_st, true, phis)
    assert rms(errors) < (0.3 if magnetic else 0.15)
    assert result.phi_deg_s[0] == 0.0
    assert result.phi_deg_s[1] == pytest.approx(100.7, abs=0.1)
    std = np.concatenate(result.std_vu_nm_st) / PIXEL_NM
    assert 0.3 < rms(errors / std) < 2.5
    assert result.last_step_nm < 0.05 * PIXEL_NM


def test_views_whose_place_is_not_known_are_put_to_those_that_are():
    rng = np.random.default_rng(3)
    shifts = rng.normal(0, 40, (len(TILTS), 2))
    series = measured(rng, grains(rng), 0.0, shifts)
    known = shifts.copy()
    lost = [0, 7, 8]
    known[lost] = np.nan
    contrast = Contrast((series,), SLAB_NM, scalar=True)
    (found,), (std,) = place_views([contrast], PIXEL_NM, [known])
    np.testing.assert_array_equal(np.delete(found, lost, 0), np.delete(shifts, lost, 0))
    assert rms((found - shifts)[lost]) < 0.15 * PIXEL_NM
    assert 0.3 < rms((found - shifts)[lost] / std[lost]) < 2.5
    assert not np.delete(std, lost, 0).any()


def test_a_film_without_structure_is_said():
    rng = np.random.default_rng(4)
    empty = TiltSeries(0.0, TILTS, rng.normal(0.9, 0.01, (len(TILTS), 64, 64)))
    with pytest.raises(InputError, match="no structure in common"):
        refine_shifts([Contrast((empty,), SLAB_NM, scalar=True)], PIXEL_NM)
    with pytest.raises(InputError, match="at least one"):
        refine_shifts([], PIXEL_NM)
