"""From marked views to aligned ones: on spheres projected by hand, and on frames of the simulated beamline."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from mistral_txm.reconstruction.fiducials import Fiducials
from mistral_txm.reconstruction.helicity import HelicityOffset
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.services.alignment import align
from mistral_txm.services.angle_signals import AngleSignals, needed_for_volume, with_marks
from mistral_txm.services.film_height import middle_height_nm
from mistral_txm.services.live_volumes import VolumeMaker
from mistral_txm.services.truth import fiducials_move_xy_nm, moved, read_truth
from mistral_txm.services.truth_comparison import compare_with_truth
from mistral_txm.simulated_beamline.beamline import Beamline
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.sample import Sample
from mistral_txm.simulated_beamline.settings import load_settings
from mistral_txm.simulated_beamline.state import State
from mistral_txm.simulated_beamline.textures import load
from mistral_txm.simulated_beamline.truth import write_truth

PIXEL_NM = 10.5
SURFACES_NM = (-170.0, 120.0)
SPHERES_NM = np.array(
    [[160, 1090, 170], [1010, 760, -220], [-980, -870, 170], [300, -900, 170], [-700, 500, -220.0]]
)
HEIGHT_NM = -80.0
"""Of the film's middle over the tilt axis."""
TILTS_DEG = np.arange(-50.0, 51.0, 10.0)
NOTHING = Signals(*(np.full((64, 64), value, np.float32) for value in (0.5, 0.1, 0.02)))


def found(spheres_nm, phi_deg, theta_deg, shift_vu=(0.0, 0.0), noise=None):
    """What is seen of spheres, by the definition of the stage frame and the detector."""
    phi, theta = np.deg2rad([phi_deg, theta_deg])
    x, y, z = (spheres_nm + np.array([0, 0, HEIGHT_NM])).T
    stage_x, stage_y = x * np.cos(phi) - y * np.sin(phi), x * np.sin(phi) + y * np.cos(phi)
    u = stage_x * np.cos(theta) - z * np.sin(theta)
    at = np.column_stack([stage_y, u]) + shift_vu
    if noise is not None:
        at = at + noise.normal(0, 0.3, at.shape)
    n = len(at)
    return Fiducials(at, np.full((n, 2), 0.3), np.full(n, 40.0), np.ones(n))


def series(spheres_nm=SPHERES_NM, azimuths=((0.0, 0.0), (102.0, 102.7)), tilts_deg=TILTS_DEG):
    """Angles of azimuths (stated, true), and the shift of each."""
    noise = np.random.default_rng(1)
    angles, shifts = [], {}
    for stated_deg, phi_deg in azimuths:
        for theta_deg in tilts_deg:
            shifts[stated_deg, theta_deg] = shift = noise.normal(0, 40, 2)
            seen = found(spheres_nm, phi_deg, theta_deg, shift, noise)
            angles.append(AngleSignals(stated_deg, float(theta_deg), NOTHING, seen))
    return angles, shifts


def first_of(fiducials, number):
    """Some of the spheres."""
    return Fiducials(*(getattr(fiducials, one.name)[:number] for one in fields(fiducials)))


def test_run_out_and_azimuth_are_found_and_z_is_counted_from_the_films_middle():
    angles, shifts = series()
    views, told = align(reversed(angles), PIXEL_NM, SURFACES_NM)
    assert told.aligned
    assert told.fiducials == 5
    assert told.residual_pixels < 0.05
    assert [one.stated_phi_deg for one in views] == [0.0, 102.0]
    assert views[1].phi_deg == pytest.approx(102.7, abs=0.05)
    heights = sorted(z for *_, z in told.spheres_xyz_nm)
    np.testing.assert_allclose(heights, [-220, -220, 170, 170, 170], atol=2)
    for one, phi_deg in zip(views, (0.0, 102.7), strict=True):
        # Where the film's middle falls, by hand, but for the lateral origin that all views share.
        theta, phi = np.deg2rad(one.theta_deg_t), np.deg2rad(phi_deg)
        expected = np.array([shifts[one.stated_phi_deg, t] for t in TILTS_DEG])
        expected[:, 1] -= HEIGHT_NM * np.sin(theta)
        off = one.shift_vu_nm_t - expected
        v_row = np.column_stack(
            [np.full_like(theta, np.sin(phi)), np.full_like(theta, np.cos(phi))]
        )
        u_row = np.column_stack([np.cos(phi) * np.cos(theta), -np.sin(phi) * np.cos(theta)])
        matrix = np.concatenate([v_row, u_row])
        origin, *_ = np.linalg.lstsq(matrix, off.T.ravel())
        assert np.abs(off.T.ravel() - matrix @ origin).max() < 2.0
        assert np.hypot(*origin) < 100
    json.dumps(told.to_json(), allow_nan=False)
    assert "5 fiducials" in told.message
    assert "phi 102.70 +- 0.0" in told.message


def test_spheres_are_masked_where_the_helicities_may_lie_apart_and_gold_shows():
    at = np.array([[0.0, 0.0, 170.0], [150.0, 200.0, 170.0], [-200.0, -150.0, -220.0]])
    angles, shifts = series(at, azimuths=((0.0, 0.0),))
    v_nm, u_nm = np.meshgrid(*2 * [(np.arange(64) - 31.5) * PIXEL_NM], indexing="ij")

    def showing(one):
        """A bright and a dark rim on opposite sides of every sphere."""
        image = NOTHING.dichroic_vu.copy()
        for v, u in one.fiducials.position_vu_nm:
            near = np.hypot(v_nm - v, u_nm - u) < 60
            image[near] += 0.15 * np.sign(v_nm - v)[near]
        return replace(one, signals=replace(NOTHING, dichroic_vu=image))

    def masked(marked):
        views, told = align(marked, PIXEL_NM, SURFACES_NM)
        assert told.aligned
        return np.isnan(views[0].tilt_series(PIXEL_NM).dichroic_tvu)

    showing_tilts = [showing(one) for one in angles]
    for image, theta_deg in zip(masked(showing_tilts), TILTS_DEG, strict=True):
        assert 0.02 < image.mean() < 0.2
        for v, u in found(at, 0.0, theta_deg, shifts[0.0, theta_deg]).position_vu_nm / PIXEL_NM:
            if max(abs(v), abs(u)) < 27:
                assert image[round(v + 31.5), round(u + 31.5)]
    assert not np.isnan(showing_tilts[0].signals.dichroic_vu).any()  # what was measured is left
    known = HelicityOffset(np.zeros(2), np.full(2, 0.1 * PIXEL_NM))
    assert not masked([replace(one, helicity_offset=known) for one in showing_tilts]).any()
    assert not masked(angles).any()  # nothing shows


def test_views_without_a_place_are_left_out():
    angles, _ = series()
    angles[3] = replace(angles[3], fiducials=Fiducials.none())
    views, told = align(angles, PIXEL_NM, SURFACES_NM)
    assert [len(one.angles) for one in views] == [10, 11]
    assert angles[3] not in views[0].angles
    assert np.isfinite(views[0].shift_vu_nm_t).all()
    assert told.azimuths[0].views_left_out == 1
    assert "phi 0 deg: 1 views without fiducials are left out" in told.message


def unaligned(angles):
    views, told = align(angles, PIXEL_NM, SURFACES_NM)
    assert not told.aligned
    assert "\n" not in told.reason
    assert sum(len(one.angles) for one in views) == len(angles)
    for one in views:
        assert one.phi_deg == one.stated_phi_deg
        made = one.tilt_series(PIXEL_NM)
        assert made.shift_vu_nm_t is None
        assert made.warp_tvu is None
        assert np.isfinite(made.dichroic_tvu).all()
    return told.message


def test_no_fiducials():
    angles, _ = series()
    bare = [replace(one, fiducials=Fiducials.none()) for one in angles]
    assert unaligned(bare) == (
        "not aligned: fewer than 3 views with fiducials; "
        "phi 0 deg: images under 128 pixels are too small to compare"
    )


def test_one_fiducial_alone():
    assert "1 spheres could be followed" in unaligned(series(SPHERES_NM[:1])[0])


def test_two_fiducials_do_not_give_the_azimuth():
    assert "fewer than 3 in common" in unaligned(series(SPHERES_NM[:2])[0])


def test_a_sphere_at_the_border_that_few_views_show_spoils_nothing():
    steep_deg = np.array([-50.0, -49.7, -49.4])
    tilts_deg = np.sort([*TILTS_DEG[1:], *steep_deg])
    border_nm = [[4900.0, 100.0, 170.0]]
    angles, _ = series(np.vstack([SPHERES_NM, border_nm]), tilts_deg=tilts_deg)
    seen = [
        one
        if one.phi_deg == 0 and one.theta_deg in steep_deg
        else replace(one, fiducials=first_of(one.fiducials, len(SPHERES_NM)))
        for one in angles
    ]
    _, told = align(seen, PIXEL_NM, SURFACES_NM)
    assert told.aligned, told.message
    assert told.fiducials == 6
    assert told.azimuths[1].phi_deg == pytest.approx(102.7, abs=0.05)
    heights = sorted(z for *_, z in told.spheres_xyz_nm[:5])
    np.testing.assert_allclose(heights, [-220, -220, 170, 170, 170], atol=2)


def test_too_little_tilt_to_tell_heights():
    assert "leave the fiducials' places open" in unaligned(
        series(azimuths=((0.0, 0.0),), tilts_deg=np.array([-50.0, -49.0, -48.0]))[0]
    )


def test_fiducials_that_are_no_rigid_body():
    noise = np.random.default_rng(2)
    angles, _ = series(azimuths=((0.0, 0.0),))
    shaken = [
        replace(
            one,
            fiducials=replace(
                one.fiducials,
                position_vu_nm=one.fiducials.position_vu_nm + noise.normal(0, 15, (5, 2)),
            ),
        )
        for one in angles
    ]
    assert "disagree" in unaligned(shaken)


def test_too_many_views_without_fiducials():
    angles, _ = series(azimuths=((0.0, 0.0),))
    bare = [
        replace(one, fiducials=Fiducials.none()) if one.theta_deg > 10 else one for one in angles
    ]
    assert "no fiducial is seen in 4 of 11 views" in unaligned(bare)


def test_an_azimuth_that_has_just_begun_waits():
    angles, _ = series()
    begun = [replace(one, fiducials=Fiducials.none()) for one in angles[11:13]]
    views, told = align(angles[:11] + begun, PIXEL_NM, SURFACES_NM)
    assert told.aligned
    assert [one.stated_phi_deg for one in views] == [0.0]
    assert (told.azimuths[1].views, told.azimuths[1].waiting) == (2, True)
    assert "phi 102 deg: 2 views wait for more tilts" in told.message


@pytest.mark.parametrize(
    ("heights", "expected", "words"),
    [
        ([90.0, 92.0, -300.0], -79.0, ""),
        ([90.0, 90.0], -80.0, "all fiducials lie on one surface: the one"),
        ([-290.0, -290.0], -70.0, "all fiducials lie on one surface: the one"),
        ([-25.0, -25.0], None, "it is open on which"),
        ([90.0, -30.0, 250.0], None, "fit no surfaces"),
    ],
)
def test_the_films_middle_by_the_surfaces_that_spheres_lie_on(heights, expected, words):
    height_nm, told = middle_height_nm(np.array(heights), SURFACES_NM)
    assert height_nm == (None if expected is None else pytest.approx(expected, abs=2))
    assert words in told
    assert bool(words) == bool(told)


@pytest.mark.slow
def test_what_the_real_conditions_do_is_undone(tmp_path):
    """Frames of the simulated beamline, developed here by Beer and Lambert alone, and its truth."""
    shape, seed = (256, 256), 0
    settings = load_settings("real")
    sample = Sample(load("stripes"), seed, settings.fiducials)
    beamline = Beamline(sample, settings, shape, seed)
    state = State(
        theta_deg=0.0, azimuth_deg=0.0, sample_x_um=0.0, sample_y_um=0.0, sample_z_um=0.0,
        zone_plate_z_um=0.0, jaw_down_mm=1.5, jaw_up_mm=2.5, energy_ev=707.4, shutter_open=True,
        exposure_s=8.0, region=Region(0, 0, *shape),
    )  # fmt: skip
    above = state, replace(state, jaw_down_mm=-2.5, jaw_up_mm=-1.5, zone_plate_z_um=1.5)

    def light(at, count):
        """Counts over dark for each mA of `count` frames."""
        frames = [
            (beamline.frame(at, i) - dark) / beamline.ring_current_ma(at, i) for i in range(count)
        ]
        return np.median(frames, axis=0) if count > 2 else np.mean(frames, axis=0)

    dark = np.zeros(shape)
    closed = replace(state, shutter_open=False)
    dark = np.median([beamline.frame(closed, i) for i in range(5)], axis=0)
    flats = [light(replace(one, sample_x_um=200.0), 10) for one in above]
    made, true_phi_deg, time_s = [], {}, 0.0
    for azimuth_deg in (0.0, 102.0):
        for theta_deg in np.arange(-50.0, 51.0, 10.0):
            absorbances = []
            for one, flat in zip(above, flats, strict=True):
                time_s += 90.0
                at = replace(
                    one,
                    theta_deg=theta_deg,
                    azimuth_deg=azimuth_deg,
                    exposure_s=20.0,
                    time_s=time_s,
                )
                counts = np.maximum(light(at, 3), 1e-3 * flat)
                absorbances.append(-np.log(counts * 8.0 / 20.0 / flat))
                pose, _ = beamline.pose(at, 0)
            true_phi_deg[azimuth_deg] = pose.azimuth_deg
            plus, minus = absorbances
            std = 0.03 * np.exp(np.maximum((plus + minus) / 2, 0) / 2)
            images = ((plus + minus) / 2, (plus - minus) / 2, std)
            signals = Signals(*(image.astype(np.float32) for image in images))
            marked = with_marks(AngleSignals(azimuth_deg, theta_deg, signals), PIXEL_NM)
            made.append(needed_for_volume(marked, PIXEL_NM))
    layers_nm = [(-120.0, -40.0), (40.0, 120.0)]
    (found,) = VolumeMaker(PIXEL_NM, layers_nm, SURFACES_NM).make(made)
    volume, told = found.volume, found.alignment
    assert told.aligned
    assert told.residual_pixels < 0.1
    turned = true_phi_deg[102.0] - true_phi_deg[0.0]
    assert told.azimuths[1].phi_deg == pytest.approx(turned, abs=0.1)
    assert abs(turned - 102.0) > 0.3
    assert told.inclination_deg == pytest.approx(settings.goniometer.inclination_deg, abs=0.05)
    assert told.lean_deg == pytest.approx(settings.goniometer.lean_deg, abs=0.05)
    image = settings.image
    assert told.helicity_offset_vu_nm == pytest.approx(
        [image.helicity_shift_v_pixels * PIXEL_NM, image.helicity_shift_u_pixels * PIXEL_NM], abs=3
    )
    write_truth(tmp_path / "truth.h5", sample, shape[0], seed, settings)
    truth = read_truth(tmp_path / "truth.h5")
    move = fiducials_move_xy_nm(truth, told.spheres_xyz_nm)
    compared = compare_with_truth(volume, moved(truth, move), found=(), margin_nm=355.0)
    correlations = {name: one["correlation"] for name, one in compared["components"].items()}
    assert correlations["mx"] > 0.98
    assert correlations["my"] > 0.9
    assert correlations["mz"] > 0.98


def test_without_surfaces_z_is_counted_from_the_axis():
    _, told = align(series()[0], PIXEL_NM)
    assert "z from the tilt axis" in told.message
    heights = sorted(z for *_, z in told.spheres_xyz_nm)
    expected = np.array([-220, -220, 170, 170, 170]) + HEIGHT_NM
    # The shifts' mean along sin(theta), which nothing tells from a height, is small but not zero.
    np.testing.assert_allclose(heights, expected, atol=40)
