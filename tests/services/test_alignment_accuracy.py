"""Aligned views against the true poses of the simulated beamline: real optics, the paper's dose, `real` conditions.

Only the origin of the sample is taken out, one move in x, y and z for all views; where the film's points fall is
compared, so azimuth, inclination and lean count, too.
"""

from dataclasses import replace

import numpy as np
import pytest

from mistral_txm.services.alignment import align
from mistral_txm.services.structure_memory import StructureMemory
from mistral_txm.simulated_beamline.sample import PIXEL_NM
from mistral_txm.simulated_beamline.settings import load_settings
from tests.services.simulated_views import developed, errors_pixels, only_marked, render

pytestmark = pytest.mark.slow
WITH_FIDUCIALS_PIXELS = 0.15
WITHOUT_PIXELS = 0.3
OVER_THE_FILM_NM = [(x, y) for x in (-800.0, 0.0, 800.0) for y in (-800.0, 0.0, 800.0)]
STRIPES_NM = ((-120.0, -40.0), (40.0, 120.0))
TILTS_DEG = np.arange(-56.0, 57.0, 8.0)


def rms(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


def true_turn_deg(rendered):
    """True azimuth of the last series against the first."""
    return rendered[-1].poses[0].azimuth_deg - rendered[0].poses[0].azimuth_deg


@pytest.fixture(scope="module")
def ten_spheres():
    return render("stripes", 10, TILTS_DEG, 256)


def run_out_pixels(rendered):
    """How far apart the poses of neighbouring tilts are, rms: what has to be undone."""
    shift = np.array([[p.shift_v_nm, p.shift_u_nm] for p in (one.poses[0] for one in rendered)])
    return rms(shift - shift.mean(axis=0)) / PIXEL_NM


def test_ten_fiducials(ten_spheres):
    assert run_out_pixels(ten_spheres) > 3
    views, told = align(developed(ten_spheres, 1), PIXEL_NM, None, STRIPES_NM)
    assert (told.aligned, told.by, told.fiducials) == (True, "fiducials", 10)
    assert rms(errors_pixels(views, ten_spheres, OVER_THE_FILM_NM)) < WITH_FIDUCIALS_PIXELS
    assert told.residual_pixels < 0.1
    assert views[1].phi_deg == pytest.approx(true_turn_deg(ten_spheres), abs=0.02)
    axis = load_settings("real").goniometer
    assert told.inclination_deg == pytest.approx(axis.inclination_deg, abs=0.03)
    assert told.lean_deg == pytest.approx(axis.lean_deg, abs=0.03)


def test_fiducials_that_are_lost_and_that_merge():
    def spoiled(phi_deg, theta_deg):
        return (2, 0) if theta_deg > 20 else (0, 2) if phi_deg else (0, 0)

    rendered = render("stripes", 10, TILTS_DEG, 256, spoiled=spoiled)
    views, told = align(developed(rendered, 1), PIXEL_NM, None, STRIPES_NM)
    assert (told.aligned, told.by) == (True, "fiducials")
    assert rms(errors_pixels(views, rendered, OVER_THE_FILM_NM)) < WITH_FIDUCIALS_PIXELS


def test_standard_deviations_are_the_errors_of_many_draws(ten_spheres):
    """Six draws of noise.

    32 shifts in each, of which 3 are the origin's: chance alone moves the rms of their ratio by 1 / sqrt(2 * 174) =
    5 %. A factor of 1.25 leaves room for errors that all draws share, of how well a disc's centre can be told.
    """
    some = ten_spheres[::2]
    off, std, turned = [], [], []
    for seed in range(6):
        views, told = align(only_marked(some, seed), PIXEL_NM)
        off.append(errors_pixels(views, some))
        std.append(told.std_shift_pixels)
        azimuth = told.azimuths[1]
        turned.append((azimuth.phi_deg - true_turn_deg(some)) / azimuth.std_phi_deg)
    assert 1 / 1.25 < rms(off) / rms(std) < 1.25
    assert rms(turned) < 2


def from_tilt_to_tilt(off, views):
    """What is left of shifts without what grows with the tangent of the tilt, which stated deviations do not hold."""
    left, first = [], 0
    for one in views:
        slope = np.column_stack(
            [np.tan(np.deg2rad(one.theta_deg_t)), np.ones(len(one.theta_deg_t))]
        )
        of_series = off[first : first + len(slope)].reshape(len(slope), -1)
        left.append(of_series - slope @ np.linalg.lstsq(slope, of_series)[0])
        first += len(slope)
    return np.concatenate(left)


def test_a_disc_without_fiducials():
    """A vortex is round: its azimuth stays as it was stated, and that displaces nothing."""
    rendered = render("vortex", 0, np.arange(-54.0, 55.0, 12.0), 256)
    angles, layers_nm = developed(rendered, 1), ((-40.0, 40.0),)
    memory = StructureMemory()
    views, told = align(angles, PIXEL_NM, None, layers_nm, memory.shifts)
    assert (told.aligned, told.by, told.provisional_views) == (True, "structure", 0)
    off = errors_pixels(views, rendered)
    assert rms(off) < WITHOUT_PIXELS
    assert 0.5 < rms(from_tilt_to_tilt(off, views)) / told.std_shift_pixels < 2
    assert views[1].phi_deg == 102.0
    assert "phi 102 deg as stated: the film looks the same when turned" in told.message
    # A view is taken again, and laid among the others; at last all are refined as if nothing had been known.
    angles[-1] = replace(angles[-1])
    so_far, said = align(angles, PIXEL_NM, None, layers_nm, memory.shifts)
    assert said.provisional_views == 1
    assert rms(errors_pixels(so_far, rendered)[-1]) < WITHOUT_PIXELS
    assert (so_far[1].shift_vu_nm_t[-1] != views[1].shift_vu_nm_t[-1]).all()
    at_last, said = align(angles, PIXEL_NM, None, layers_nm, memory.all_shifts)
    assert said == told
    for one, other in zip(at_last, views, strict=True):
        np.testing.assert_array_equal(one.shift_vu_nm_t, other.shift_vu_nm_t)


def test_stripes_without_fiducials():
    """Their walls take up what grows with the tilt, but for their length: without it 0.34 pixels are left."""
    rendered = render("stripes", 0, TILTS_DEG, 256)
    assert run_out_pixels(rendered) > 3
    views, told = align(developed(rendered, 2), PIXEL_NM, None, STRIPES_NM)
    assert (told.aligned, told.by) == (True, "structure")
    assert rms(errors_pixels(views, rendered)) < WITHOUT_PIXELS
    assert views[1].phi_deg == pytest.approx(true_turn_deg(rendered), abs=0.1)


def test_an_even_film_says_that_it_shows_nothing():
    rendered = render("uniform", 0, np.arange(-40.0, 41.0, 10.0), 128)
    views, told = align(developed(rendered, 1), PIXEL_NM, None, ((-40.0, 40.0),))
    assert not told.aligned
    assert "the views themselves show nothing to align by" in told.message
    assert all(one.shift_vu_nm_t is None for one in views)
