import numpy as np
import pytest

from mistral_txm.reconstruction import InputError
from mistral_txm.reconstruction.fiducials import Fiducials
from mistral_txm.reconstruction.tracks import track

TILTS = np.arange(-54.0, 55.0, 4.0)


def fiducials(at):
    at = np.asarray(at, float).reshape(-1, 2)
    return Fiducials(at, np.full(at.shape, 0.2), np.full(len(at), 43.0), np.ones(len(at)))


def projected(points, theta_deg):
    c, s = np.cos(np.deg2rad(theta_deg)), np.sin(np.deg2rad(theta_deg))
    return np.column_stack([points[:, 1], points[:, 0] * c - points[:, 2] * s])


def labels(tracks, points, shifts):
    """Which sphere each track is, by every one of its positions; no track may hold two spheres."""
    result = []
    for number in range(tracks.position_tb_vu_nm.shape[1]):
        own = set()
        for view in np.flatnonzero(np.isfinite(tracks.position_tb_vu_nm[:, number, 0])):
            off = projected(points, TILTS[view]) + shifts[view]
            off = np.hypot(*(off - tracks.position_tb_vu_nm[view, number]).T)
            own.add(int(off.argmin()))
            assert off.min() < 5
        assert len(own) == 1
        result.append(own.pop())
    return result


@pytest.mark.parametrize("run_out_nm", [40.0, 250.0])
def test_every_sphere_keeps_its_track(run_out_nm):
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-2500, 2500, (9, 2)), rng.choice([-170, 170], 9)])
    shifts = rng.normal(0, run_out_nm, (len(TILTS), 2))
    found = []
    for theta, shift in zip(TILTS, shifts, strict=True):
        at = projected(points, theta) + shift
        at = at[rng.random(9) > 0.15]
        found.append(fiducials(rng.permutation(np.vstack([at, rng.uniform(-2500, 2500, (1, 2))]))))
    tracks = track(TILTS, found)
    assert sorted(labels(tracks, points, shifts)) == list(range(9))
    seen = np.isfinite(tracks.position_tb_vu_nm[:, :, 0])
    # A disc can be taken by a false one beside it, or lie where two spheres cross: a few per cent.
    assert seen.mean() > 0.8
    off = tracks.shift_vu_nm_t - shifts
    # Where the origin lies, across the axis and in height, is not determined.
    angle = np.deg2rad(TILTS)
    moves = np.column_stack([np.ones(len(TILTS)), np.cos(angle), np.sin(angle)])
    off = off - moves @ np.linalg.lstsq(moves, off)[0]
    assert np.abs(off).max() < 20.0


def test_spheres_on_a_pillar_lie_micrometres_above_each_other():
    rng = np.random.default_rng(5)
    x = rng.uniform(-2300, 2300, 10)
    height = np.sqrt(2500.0**2 - x**2) * rng.choice([-1, 1], 10)
    points = np.column_stack([x, np.linspace(-2500, 2500, 10), height])
    shifts = rng.normal(0, 40, (len(TILTS), 2))
    found = [
        fiducials(rng.permutation(projected(points, theta) + shift))
        for theta, shift in zip(TILTS, shifts, strict=True)
    ]
    tracks = track(TILTS, found)
    assert sorted(labels(tracks, points, shifts)) == list(range(10))
    assert np.isfinite(tracks.position_tb_vu_nm[:, :, 0]).mean() > 0.9


def test_spheres_enter_and_leave_the_field_of_view():
    points = np.array([[0.0, 0.0, 100.0], [900.0, 800.0, 0.0], [3000.0, -900.0, 0.0]])
    found = []
    for theta in TILTS:
        at = projected(points, theta)
        found.append(fiducials(at[np.abs(at[:, 1]) < 2200]))
    tracks = track(TILTS, found)
    assert sorted(labels(tracks, points, np.zeros((len(TILTS), 2)))) == [0, 1, 2]
    outside = np.abs(TILTS) < np.rad2deg(np.arccos(2200 / 3000))
    far = np.isfinite(tracks.position_tb_vu_nm[outside, :, 0]).sum(axis=1)
    assert far.max() == 2


def test_spheres_that_cross_are_left_out_where_they_do():
    """Two spheres, one above the other's side: their discs meet at 45 deg and are one."""
    points = np.array(
        [[-100.0, 0.0, -100.0], [100.0, 0.0, 100.0], [1500.0, 900.0, 0.0], [-1200.0, 500.0, 0.0]]
    )
    found = []
    for theta in TILTS:
        at = projected(points, theta)
        if np.hypot(*(at[0] - at[1])) < 90:
            at = np.vstack([(at[0] + at[1]) / 2, at[2:]])
        found.append(fiducials(at))
    tracks = track(TILTS, found)
    assert sorted(labels(tracks, points, np.zeros((len(TILTS), 2)))) == [0, 1, 2, 3]
    near = np.abs(TILTS - 45) < 10
    crossing = np.isfinite(tracks.position_tb_vu_nm[near, :2, 0])
    assert not crossing.any()


def test_a_view_without_discs_has_no_shift():
    points = np.array([[500.0, 0.0, 0.0], [-500.0, 700.0, 0.0]])
    found = [fiducials(projected(points, theta)) for theta in TILTS]
    found[3] = Fiducials.none()
    assert np.flatnonzero(np.isnan(track(TILTS, found).shift_vu_nm_t[:, 0])).tolist() == [3]


@pytest.mark.parametrize(
    ("tilts", "views", "words"), [([0.0], 2, "one per view"), ([85.0], 1, "at most 80"), ([0.0], 1, "at least 2")]
)  # fmt: skip
def test_what_cannot_be_followed_is_said(tilts, views, words):
    with pytest.raises(InputError, match=words):
        track(tilts, [Fiducials.none()] * views)
