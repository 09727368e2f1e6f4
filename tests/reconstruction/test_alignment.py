import doctest

import numpy as np
import pytest

from mistral_txm.reconstruction import InputError, alignment, bundle, constellation, poses
from mistral_txm.reconstruction.alignment import MarkedSeries, adjust
from mistral_txm.reconstruction.constellation import match_constellations
from mistral_txm.reconstruction.fiducials import Fiducials, find_fiducials
from mistral_txm.reconstruction.straighten import straightened
from mistral_txm.simulated_beamline import textures
from mistral_txm.simulated_beamline.materials import absorption_per_nm
from mistral_txm.simulated_beamline.optics import PADDING, ZonePlate
from mistral_txm.simulated_beamline.sample import Pose, Sample
from mistral_txm.simulated_beamline.settings import load_settings

PIXEL_NM = 10.5
TILTS = np.concatenate([np.arange(-55, -23, 3), np.arange(-22, 23, 4), np.arange(24, 56, 3)]) * 1.0
HALF_NM = 2700.0


def fall_on(points_xyz, theta_deg, phi_deg, inclination_deg=0.0, lean_deg=0.0, shift_vu=(0.0, 0.0)):
    """(v, u) of points, written out: azimuth, tilt, lean towards the camera, turn of the image."""
    t, p, i, q = np.deg2rad([theta_deg, phi_deg, inclination_deg, lean_deg])
    x, y, z = np.asarray(points_xyz, float).T
    stage_x, stage_y = x * np.cos(p) - y * np.sin(p), x * np.sin(p) + y * np.cos(p)
    u0, depth = stage_x * np.cos(t) - z * np.sin(t), stage_x * np.sin(t) + z * np.cos(t)
    v0 = stage_y * np.cos(q) - depth * np.sin(q)
    u, v = u0 * np.cos(i) - v0 * np.sin(i), u0 * np.sin(i) + v0 * np.cos(i)
    return np.column_stack([v + shift_vu[0], u + shift_vu[1]])


def scattered(rng, count):
    xy = rng.uniform(-0.75 * HALF_NM, 0.75 * HALF_NM, (count, 2))
    return np.column_stack([xy, rng.choice([-170.0, 170.0], count, p=[0.3, 0.7])])


def seen(rng, points, phi_deg, shifts, *, sigma_nm=0.2, miss=0.1, false=0.2, wrong=0.02, **axis):
    """What is found of spheres: noise, some missed, some wrong, some discs that are none, no order."""
    found = []
    for theta, shift in zip(TILTS, shifts, strict=True):
        at = fall_on(points, theta, phi_deg, shift_vu=shift, **axis)
        at = at[(np.abs(at) < HALF_NM).all(axis=1) & (rng.random(len(at)) >= miss)]
        at = at + rng.normal(0, sigma_nm, at.shape)
        off = rng.random(len(at)) < wrong
        at[off] += rng.normal(0, 30.0, (off.sum(), 2))
        if rng.random() < false:
            at = np.vstack([at, rng.uniform(-HALF_NM, HALF_NM, (1, 2))])
        at = rng.permutation(at)
        found.append(
            Fiducials(at, np.full(at.shape, sigma_nm), np.full(len(at), 43.0), np.ones(len(at)))
        )
    return found


def off_modulo_origin(aligned, true_shifts):
    """Errors of the shifts, less the move of the origin that explains most of them, and their std."""
    matrices = np.concatenate([aligned.projection_t(i) for i in range(len(true_shifts))])
    off = np.concatenate(
        [p.shift_vu_nm_t - true for p, true in zip(aligned.series, true_shifts, strict=True)]
    )
    std = np.concatenate([p.std_shift_vu_nm_t for p in aligned.series])
    move = np.linalg.lstsq(matrices.reshape(-1, 3), off.ravel())[0]
    return off - matrices @ move, std


@pytest.mark.parametrize("module", [alignment, constellation, poses])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(("count", "most_pixels"), [(10, 0.02), (5, 0.03)])
def test_two_series_with_run_out_and_unknown_azimuth(count, most_pixels):
    rng = np.random.default_rng(count)
    points = scattered(rng, count)
    shifts = [rng.normal(0, 40, (len(TILTS), 2)) for _ in range(2)]
    axis = {"inclination_deg": 0.3, "lean_deg": 0.2}
    series = [
        MarkedSeries(0.0, TILTS, seen(rng, points, 0.0, shifts[0], wrong=0, **axis)),
        MarkedSeries(102.0, TILTS, seen(rng, points, 102.7, shifts[1], wrong=0, **axis)),
    ]
    aligned = adjust(series, PIXEL_NM)
    off, std = off_modulo_origin(aligned, shifts)
    assert np.sqrt(np.mean(off**2)) < most_pixels * PIXEL_NM
    assert 0.7 < np.std(off / std) < 1.3
    second = aligned.series[1]
    for value, sigma, true in (
        (second.phi_deg, second.std_phi_deg, 102.7),
        (second.tilt_zero_deg, second.std_tilt_zero_deg, 0.0),
        (second.roll_deg, second.std_roll_deg, 0.0),
        (aligned.inclination_deg, aligned.std_inclination_deg, 0.3),
        (aligned.lean_deg, aligned.std_lean_deg, 0.2),
    ):
        assert sigma < 0.01
        assert abs(value - true) < 4.5 * sigma
    assert len(aligned.sphere_xyz_nm) == count
    assert aligned.residual_rms_pixels == pytest.approx(0.02, rel=0.2)
    assert aligned.std_factor < 1.3


def test_wrong_centres_do_not_pull():
    rng = np.random.default_rng(3)
    points, shifts = scattered(rng, 9), rng.normal(0, 40, (len(TILTS), 2))
    found = seen(rng, points, 0.0, shifts, wrong=0.05)
    aligned = adjust([MarkedSeries(0.0, TILTS, found)], PIXEL_NM)
    off, _ = off_modulo_origin(aligned, [shifts])
    assert np.sqrt(np.mean(off**2)) < 0.05 * PIXEL_NM
    assert aligned.outliers >= 5


def test_sample_that_was_mounted_askew():
    """Tilt zero and roll of the second series, on points turned by hand before the azimuth's tilt."""
    rng = np.random.default_rng(4)
    points = scattered(rng, 8)
    roll, zero = np.deg2rad(0.6), 0.4
    shifts = [rng.normal(0, 40, (len(TILTS), 2)) for _ in range(2)]
    p = np.deg2rad(101.0)
    x, y, z = points.T
    stage = np.column_stack([x * np.cos(p) - y * np.sin(p), x * np.sin(p) + y * np.cos(p), z])
    stage[:, 1:] = np.column_stack(
        [
            stage[:, 1] * np.cos(roll) - z * np.sin(roll),
            stage[:, 1] * np.sin(roll) + z * np.cos(roll),
        ]
    )
    found = []
    for theta, shift in zip(TILTS, shifts[1], strict=True):
        at = fall_on(stage, theta + zero, 0.0, shift_vu=shift) + rng.normal(0, 0.2, (8, 2))
        found.append(Fiducials(at, np.full((8, 2), 0.2), np.full(8, 43.0), np.ones(8)))
    first = MarkedSeries(0.0, TILTS, seen(rng, points, 0.0, shifts[0], wrong=0))
    aligned = adjust([first, MarkedSeries(102.0, TILTS, found)], PIXEL_NM)
    second = aligned.series[1]
    np.testing.assert_allclose(
        [second.phi_deg, second.tilt_zero_deg, second.roll_deg], [101.0, 0.4, 0.6], atol=0.02
    )
    assert np.sqrt(np.mean(off_modulo_origin(aligned, shifts)[0] ** 2)) < 0.03 * PIXEL_NM


def test_scale_of_each_view():
    rng = np.random.default_rng(5)
    points, shifts = scattered(rng, 10), rng.normal(0, 40, (len(TILTS), 2))
    scale = np.exp(rng.normal(0, 2e-3, len(TILTS)))
    scale /= np.exp(np.log(scale).mean())
    found = []
    for theta, shift, q in zip(TILTS, shifts, scale, strict=True):
        at = q * fall_on(points, theta, 0.0) + shift + rng.normal(0, 0.2, (10, 2))
        found.append(Fiducials(at, np.full((10, 2), 0.2), np.full(10, 43.0), np.ones(10)))
    aligned = adjust([MarkedSeries(0.0, TILTS, found)], PIXEL_NM)
    np.testing.assert_allclose(aligned.series[0].scale_t, scale, atol=3e-4)
    assert aligned.residual_rms_pixels == pytest.approx(0.02, rel=0.2)


def test_views_of_one_scale_are_given_none_of_their_own():
    rng = np.random.default_rng(5)
    points, shifts = scattered(rng, 10), rng.normal(0, 40, (len(TILTS), 2))
    aligned = adjust([MarkedSeries(0.0, TILTS, seen(rng, points, 0.0, shifts))], PIXEL_NM)
    assert (aligned.series[0].scale_t == 1).all()


@pytest.mark.parametrize(
    ("axis", "point", "moves_to"),
    [
        ({"inclination_deg": 90.0}, (100.0, 0.0, 0.0), (100.0, 0.0)),
        ({"inclination_deg": 90.0}, (0.0, 100.0, 0.0), (0.0, -100.0)),
        ({"lean_deg": 30.0}, (0.0, 0.0, 100.0), (-50.0, 0.0)),
        ({"theta_deg": 30.0}, (0.0, 0.0, 100.0), (0.0, -50.0)),
        ({"phi_deg": 90.0}, (100.0, 0.0, 0.0), (100.0, 0.0)),
        ({"roll_deg": 30.0}, (0.0, 0.0, 100.0), (-50.0, 0.0)),
    ],
)
def test_signs_by_hand(axis, point, moves_to):
    """(v, u): an inclined axis turns u towards v; one that leans to the camera lets what is before it fall."""
    angles = {
        "theta_deg": 0.0,
        "phi_deg": 0.0,
        "roll_deg": 0.0,
        "inclination_deg": 0.0,
        "lean_deg": 0.0,
    }
    angles |= axis
    matrix = poses.projections(np.array([angles.pop("theta_deg")]), scale_t=np.ones(1), **angles)[0]
    np.testing.assert_allclose(matrix @ point, moves_to, atol=1e-9)


def test_derivatives_are_those_of_the_residuals():
    rng = np.random.default_rng(6)
    points = scattered(rng, 4)
    views, spheres = np.repeat(np.arange(6), 4), np.tile(np.arange(4), 6)
    seen_there = bundle.Observations(
        views, spheres, rng.normal(size=(24, 2)), np.full((24, 2), 0.5)
    )
    model = bundle.BundleModel([TILTS[:3], TILTS[-3:]], 10.0, seen_there, 4)
    model.free_scale()
    x = rng.normal(0, 0.05, model.size)
    x[:12] = points.ravel()
    exact = model.jacobian(x).toarray()
    for column in range(model.size):
        step = np.zeros(model.size)
        step[column] = 1e-2 if column < model.at_axis else 1e-6
        slope = (model.residuals(x + step) - model.residuals(x - step)) / (2 * step[column])
        np.testing.assert_allclose(exact[:, column], slope, rtol=1e-5, atol=1e-3)


def test_the_origin_is_where_the_shifts_are_smallest_and_can_be_moved():
    rng = np.random.default_rng(7)
    points, shifts = scattered(rng, 6), rng.normal(0, 40, (len(TILTS), 2))
    found = seen(rng, points, 0.0, shifts, wrong=0, false=0, miss=0)
    aligned = adjust([MarkedSeries(0.0, TILTS, found)], PIXEL_NM)
    shift = aligned.series[0].shift_vu_nm_t
    for move in (*np.eye(3), *-np.eye(3)):
        moved = aligned.with_origin(move).series[0].shift_vu_nm_t
        assert np.sum(moved**2) > np.sum(shift**2)
    true = aligned.with_origin(aligned.sphere_xyz_nm.mean(axis=0) - points[:].mean(axis=0))
    order = np.argsort(true.sphere_xyz_nm[:, 0])
    np.testing.assert_allclose(
        true.sphere_xyz_nm[order], points[np.argsort(points[:, 0])], atol=1.0
    )
    np.testing.assert_allclose(true.series[0].shift_vu_nm_t, shifts, atol=1.0)
    np.testing.assert_allclose(
        true.projected_vu_nm(0)[3][order],
        fall_on(points, TILTS[3], 0.0, shift_vu=shifts[3])[np.argsort(points[:, 0])],
        atol=1.0,
    )


def test_constellations_with_strangers_and_a_wrong_azimuth():
    rng = np.random.default_rng(8)
    points = scattered(rng, 7)
    p = np.deg2rad(-63.4)
    turn = np.array([[np.cos(p), -np.sin(p), 0], [np.sin(p), np.cos(p), 0], [0, 0, 1]])
    second = np.vstack([scattered(rng, 2), (points @ turn.T + [300.0, -500.0, 40.0])[[5, 2, 0, 6]]])
    phi, move, pairs = match_constellations(points, second, -60.0)
    assert phi == pytest.approx(-63.4, abs=1e-6)
    np.testing.assert_allclose(move, [300.0, -500.0, 40.0], atol=1e-6)
    assert sorted(map(tuple, pairs.tolist())) == [(0, 4), (2, 3), (5, 2), (6, 5)]
    with pytest.raises(InputError, match="check the azimuth"):
        match_constellations(points, second, 60.0)


def test_an_azimuth_misstated_by_degrees_and_a_sample_put_down_elsewhere():
    rng = np.random.default_rng(9)
    points = scattered(rng, 10)
    shifts = [rng.normal(0, 40, (len(TILTS), 2)) for _ in range(2)]
    # Both across and along the axis, 1.1 um off; spheres leave the field of view and others enter.
    shifts[1] += [900.0, 0.0]
    shifts[1][:, 1] += -700.0 * np.cos(np.deg2rad(TILTS))
    series = [
        MarkedSeries(0.0, TILTS, seen(rng, points, 0.0, shifts[0])),
        MarkedSeries(97.0, TILTS, seen(rng, points, 102.3, shifts[1])),
    ]
    aligned = adjust(series, PIXEL_NM)
    assert aligned.series[1].phi_deg == pytest.approx(102.3, abs=0.02)
    off, _ = off_modulo_origin(aligned, shifts)
    assert np.sqrt(np.mean(off**2)) < 0.03 * PIXEL_NM


def test_a_symmetric_constellation_is_not_guessed():
    corner = np.deg2rad([90.0, 210.0, 330.0])
    triangle = 2000 * np.column_stack([np.cos(corner), np.sin(corner), 0 * corner])
    with pytest.raises(InputError, match="as many on"):
        match_constellations(triangle, triangle, 60.0, within_deg=180.0)


def test_straightened_images_are_where_they_should_be():
    n = 128
    at = (np.arange(n) - (n - 1) / 2) * PIXEL_NM
    points = np.array([[200.0, -150.0, 0.0], [-300.0, 250.0, 0.0]])
    axis = {"inclination_deg": 2.0, "lean_deg": 1.0}

    def spots(where):
        return sum(
            np.exp(-((at[:, None] - v) ** 2 + (at[None, :] - u) ** 2) / 2 / 40.0**2)
            for v, u in where
        )

    matrix = poses.projections(np.array([40.0]), 0.0, 0.0, 2.0, 1.0, np.ones(1))[0][:, :2]
    nominal = np.array([[0.0, 1.0], [np.cos(np.deg2rad(40.0)), 0.0]])
    image = spots(fall_on(points, 40.0, 0.0, shift_vu=(35.0, -52.0), **axis))
    image[5, 7] = np.nan
    found = straightened(image, matrix @ np.linalg.inv(nominal), (35.0, -52.0), PIXEL_NM)
    expected = spots(fall_on(points, 40.0, 0.0))
    known = np.isfinite(found)
    assert 0.85 < known.mean() < 1
    np.testing.assert_allclose(found[known], expected[known], atol=0.01)


def test_too_few_fiducials_are_said():
    with pytest.raises(InputError, match="at least 2 are needed"):
        adjust([MarkedSeries(0.0, [0.0, 1.0], [Fiducials.none(), Fiducials.none()])], PIXEL_NM)
    with pytest.raises(InputError, match="at least one"):
        adjust([], PIXEL_NM)


def test_a_second_azimuth_of_one_view_is_said():
    rng = np.random.default_rng(11)
    points = scattered(rng, 4)
    first = MarkedSeries(0.0, TILTS, seen(rng, points, 0.0, np.zeros((len(TILTS), 2))))
    (view, *_) = seen(rng, points, 102.0, np.zeros((len(TILTS), 2)))
    with pytest.raises(InputError, match="phi = 102 deg: one view does not tell"):
        adjust([first, MarkedSeries(102.0, TILTS[:1], [view])], PIXEL_NM)


@pytest.mark.slow
def test_poses_of_the_simulated_sample():
    """From frames that the simulation made, through its zone plate with tilted focus, with its noise."""
    settings = load_settings("real")
    sample, zone_plate = (
        Sample(textures.load("stripes"), 1, settings.fiducials),
        ZonePlate(settings.zone_plate),
    )
    rng = np.random.default_rng(0)
    n, energy_ev, photons = 512, 707.4, 15 * 400
    tilts = np.arange(-54.0, 55.0, 12.0)
    series, true = [], []
    for said_deg, azimuth_deg in ((0.0, 0.0), (102.0, 102.7)):
        shifts_vu, found = rng.normal(0, 40, (len(tilts), 2)), []
        for theta, (v, u) in zip(tilts, shifts_vu, strict=True):
            pose = Pose(theta, azimuth_deg, u, v, 0.0, inclination_deg=0.3, lean_deg=0.2)
            view = sample.view(pose, (n + 2 * PADDING,) * 2, frozenset(), sample.spheres())
            a = sum(
                absorption_per_nm(material, energy_ev, 2000.0) * path
                for material, path in view.path_nm.items()
            )
            light = zone_plate.image(np.exp(-a).astype(np.float32), PIXEL_NM, 0.0, theta, energy_ev)
            counts = rng.poisson(light * photons * 0.4 / np.median(light))
            found.append(find_fiducials(-np.log(counts / photons), PIXEL_NM))
        series.append(MarkedSeries(said_deg, tilts, found))
        true.append(shifts_vu)
    aligned = adjust(series, PIXEL_NM)
    off, _ = off_modulo_origin(aligned, true)
    assert np.sqrt(np.mean(off**2)) < 0.05 * PIXEL_NM
    assert aligned.series[1].phi_deg == pytest.approx(102.7, abs=0.02)
    assert aligned.inclination_deg == pytest.approx(0.3, abs=0.03)
    assert aligned.lean_deg == pytest.approx(0.2, abs=0.03)
