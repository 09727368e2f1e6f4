"""What is wrong with tilt series of the right shape: on line integrals through known textures."""

from dataclasses import replace

import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, InputError, TiltSeries
from mistral_txm.reconstruction.series_checks import checked_series
from tests.reconstruction.conftest import integrate, stripes

N = 32
THETA_DEG = np.arange(-50.0, 51.0, 5.0)
GRID = Grid((12, N, N), 21.0)


def uniform_in_plane(x_nm, y_nm, z_nm):
    return np.stack([0.8 + 0 * x_nm, 0.6 + 0 * x_nm, 0 * x_nm]) * (np.abs(z_nm) < 100)


def of(texture, phi_deg, noise=0.05):
    views = np.stack([integrate(texture, theta, phi_deg, N, 120.0) for theta in THETA_DEG])
    views += np.random.default_rng(round(phi_deg)).normal(0, noise * views.std(), views.shape)
    return TiltSeries(phi_deg, THETA_DEG, views.astype(np.float32))


@pytest.fixture(scope="module")
def striped():
    return [of(stripes, phi_deg) for phi_deg in (0.0, 102.0)]


def turned(one, views=slice(None)):
    images = np.array(one.dichroic_tvu)
    images[views] *= -1
    return TiltSeries(one.phi_deg, one.theta_deg_t, images)


def refusal(series, names=("a.h5", "b.h5")):
    with pytest.raises(InputError) as error:
        checked_series(series, names, GRID)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_right_is_passed_without_a_word(striped):
    passed, notes = checked_series(striped, ["a.h5", "b.h5"], GRID)
    assert notes == []
    assert [one is other for one, other in zip(passed, striped, strict=True)] == [True, True]


def test_a_series_of_swapped_helicities_contradicts_the_other(striped):
    told = refusal([striped[0], turned(striped[1])])
    assert told.startswith("a.h5 or b.h5: its helicities are swapped, or its --phi is wrong")


def test_an_azimuth_that_is_off_by_half_a_turn_looks_the_same(striped):
    """These stripes turned by 180 deg are their own negative, so the line names both possible causes."""
    told = refusal([striped[0], TiltSeries(282.0, THETA_DEG, striped[1].dichroic_tvu)])
    assert "or its --phi is wrong" in told


@pytest.mark.slow
def test_of_three_series_the_swapped_one_is_named(striped):
    third = of(stripes, 51.0)
    names = ("a.h5", "b.h5", "c.h5")
    assert refusal([striped[0], turned(striped[1]), third], names).startswith("b.h5: ")
    assert refusal([turned(striped[0]), striped[1], third], names).startswith("a.h5: ")


def test_a_film_without_m_z_does_not_tell(striped):
    series = [of(uniform_in_plane, phi_deg) for phi_deg in (0.0, 102.0)]
    for second in (series[1], turned(series[1])):
        assert checked_series([series[0], second], ["a.h5", "b.h5"], GRID)[1] == []


@pytest.mark.parametrize("view", [0, 1, 10, len(THETA_DEG) - 1])
def test_a_view_of_swapped_helicities_is_found(striped, view):
    told = refusal([turned(striped[0], view)], ["a.h5"])
    assert told.startswith(f"a.h5: the view at theta {THETA_DEG[view]:g} deg is the negative")


def test_a_signal_that_passes_zero_is_not_taken_for_swapped():
    series = of(uniform_in_plane, 0.0)
    _, notes = checked_series([series], ["a.h5"], GRID)
    assert len(notes) == 1  # of the one azimuth


def test_views_without_a_value_are_left_out(striped):
    images = np.array(striped[0].dichroic_tvu)
    images[[3, 4]] = np.nan
    images[5, 2:9] = np.nan
    series = [TiltSeries(0.0, THETA_DEG, images), striped[1]]
    (first, _), notes = checked_series(series, ["a.h5", "b.h5"], GRID)
    assert notes[0] == "a.h5: no pixel has a value at theta -35, -30 deg: left out"
    assert notes[1].startswith("a.h5: no view between theta -40 and -25 deg")
    assert len(notes) == 2
    np.testing.assert_array_equal(first.theta_deg_t, np.delete(THETA_DEG, [3, 4]))
    stated = np.arange(1.0, len(THETA_DEG) + 1)
    (first, _), _ = checked_series(
        [replace(series[0], std_tvu=stated), striped[1]], ["a.h5", "b.h5"], GRID
    )
    np.testing.assert_array_equal(first.std_tvu, np.delete(stated, [3, 4]))
    nothing = TiltSeries(0.0, THETA_DEG, np.full_like(images, np.nan))
    assert "no pixel of any view has a value" in refusal([nothing, striped[1]])


@pytest.mark.parametrize("second_deg", [None, 0.0, 181.0])
def test_azimuths_that_give_no_more_than_one_are_told(striped, second_deg):
    series = [striped[0]]
    if second_deg is not None:
        sign = -1 if second_deg == 181.0 else 1  # half a turn: k and -k about z, in-plane turned
        images = np.array(striped[0].dichroic_tvu)
        noise = np.random.default_rng(1).normal(0, 1e-3 * images.std(), images.shape)
        images = (images + noise) if sign > 0 else images[::-1, ::-1, ::-1] + noise
        series.append(TiltSeries(second_deg, THETA_DEG, images.astype(np.float32)))
    _, notes = checked_series(series, ["a.h5", "b.h5"][: len(series)], GRID)
    assert len(notes) == 1
    assert notes[0].startswith("one azimuth alone, phi 0 deg")


def test_what_is_no_series_is_refused(striped):
    first = striped[0]
    still = TiltSeries(0.0, np.zeros_like(THETA_DEG), first.dichroic_tvu)
    assert refusal([still, striped[1]]).startswith("a.h5: all 21 tilts are 0 deg")
    images = np.array(first.dichroic_tvu)
    images[8] = images[7]
    theta_deg = THETA_DEG.copy()
    theta_deg[8] = theta_deg[7]
    twice = TiltSeries(0.0, theta_deg, images)
    assert "views 7 and 8 at theta -15 deg are one image" in refusal([twice, striped[1]])
