import numpy as np
import pytest
import scipy.ndimage

from mistral_txm.reconstruction import Grid, InputError, TiltSeries, reconstruct
from mistral_txm.reconstruction.geometry import Mount
from mistral_txm.reconstruction.straighten import straightened
from mistral_txm.reconstruction.views import (
    checked_film,
    film_views,
    padded_domain,
    resample,
    resampled_film,
)

GRID = Grid((9, 48, 48), 10.5)


def gaussian(v0_nm, u0_nm, n=48, sigma_nm=45.0):
    pixels = (np.arange(n) - (n - 1) / 2) * 10.5
    return np.exp(
        -((pixels[:, None] - v0_nm) ** 2 + (pixels[None, :] - u0_nm) ** 2) / 2 / sigma_nm**2
    ).astype(np.float32)


@pytest.mark.parametrize(
    ("theta_deg", "phi_deg"), [(0.0, 0.0), (50.0, 0.0), (-35.0, 102.0), (20.0, -77.0)]
)
def test_stretch_azimuth_and_shift_in_one_interpolation(theta_deg, phi_deg):
    domain = padded_domain(GRID, 55.0)
    shift_vu = (31.0, -52.0)
    view = resample(
        Mount(phi_deg),
        theta_deg,
        gaussian(20.0 + 31.0, -40.0 - 52.0),
        GRID,
        domain,
        std_vu=1.0,
        shift_vu_nm=shift_vu,
    )
    y, x = np.meshgrid(
        *(
            (np.arange(n) - o - 23.5) * 10.5
            for n, o in zip(domain.shape_yx, domain.offset_yx, strict=True)
        ),
        indexing="ij",
    )
    c, s = np.cos(np.deg2rad(phi_deg)), np.sin(np.deg2rad(phi_deg))
    u, v = (c * x - s * y) * np.cos(np.deg2rad(theta_deg)), s * x + c * y
    expected = np.exp(-((v - 20.0) ** 2 + (u + 40.0) ** 2) / 2 / 45.0**2)
    assert np.count_nonzero(view.seen_yx) > 1000
    np.testing.assert_allclose(view.signal_yx[view.seen_yx], expected[view.seen_yx], atol=2e-3)
    assert not view.signal_yx[~view.seen_yx].any()


def test_warp_is_part_of_the_one_interpolation():
    """A spot where a turned, leaning axis lets it fall comes back to where it lies in the film."""
    theta_deg, turn = 40.0, np.deg2rad(3.0)
    warp = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ [
        [0.98, 0.01],
        [0.0, 1.02],
    ]
    x, y, shift = -60.0, 45.0, np.array([31.0, -52.0])
    v, u = warp @ [y, x * np.cos(np.deg2rad(theta_deg))] + shift
    series = TiltSeries(
        0.0, [theta_deg], gaussian(v, u, sigma_nm=25.0)[None], [1.0], shift[None], warp[None]
    )
    domain = padded_domain(GRID, 55.0)
    (view,) = _views(series, GRID, domain)
    weight = np.where(view.seen_yx, view.signal_yx, 0)
    rows, columns = np.indices(weight.shape)
    found = [
        float((weight * index).sum() / weight.sum() - offset - 23.5) * 10.5
        for index, offset in zip((rows, columns), domain.offset_yx, strict=True)
    ]
    assert found == pytest.approx([y, x], abs=0.3)


def test_warped_views_are_those_of_straightened_images():
    rng = np.random.default_rng(5)
    image = scipy.ndimage.gaussian_filter(rng.normal(size=(64, 64)), 2.0)
    warp, shift = np.array([[1.01, 0.02], [-0.03, 0.99]]), np.array([24.0, -17.0])
    straight = straightened(image, warp, shift, 10.5)
    domain = padded_domain(GRID, 30.0)
    warped, plain = (
        _views(one, GRID, domain)[0]
        for one in (
            TiltSeries(20.0, [30.0], image[None], [1.0], shift[None], warp[None]),
            TiltSeries(20.0, [30.0], straight[None], [1.0]),
        )
    )
    both = warped.seen_yx & plain.seen_yx
    # What lies beyond the border is another guess in each.
    both = scipy.ndimage.binary_erosion(both, iterations=6)
    assert np.count_nonzero(both) > 1000
    # Two interpolations in a row blur what one keeps; both know the same content.
    np.testing.assert_allclose(
        warped.signal_yx[both], plain.signal_yx[both], atol=0.03 * image.std()
    )


def test_no_ray_that_is_seen_leaves_the_domain():
    grid = Grid((41, 32, 32), 10.5)
    domain = padded_domain(grid, 55.0)
    view = resample(Mount(0.0), 55.0, np.ones((32, 200), np.float32), grid, domain, std_vu=1.0)
    columns = np.flatnonzero(view.seen_yx.any(axis=0))
    reach = 20 * np.tan(np.deg2rad(55.0))
    assert columns.min() - reach >= 0
    assert columns.max() + reach <= domain.shape_yx[1] - 1
    assert columns.min() <= domain.offset_yx[1]


def test_masked_pixels_are_unseen_and_their_neighbours_right():
    domain = padded_domain(GRID, 0.0)
    image = gaussian(0.0, 0.0)
    holed = image.copy()
    holed[20, 25] = np.nan
    std = np.ones(image.shape)
    std[30, 30] = np.inf
    std[10, 12] = 1000.0
    whole = resample(Mount(0.0), 0.0, image, GRID, domain, std_vu=1.0)
    view = resample(Mount(0.0), 0.0, holed, GRID, domain, std_vu=std)
    (oy, ox) = domain.offset_yx
    for v, u in ((20, 25), (30, 30), (10, 12)):
        assert not view.seen_yx[oy + v, ox + u]
    assert np.count_nonzero(whole.seen_yx & ~view.seen_yx) <= 3 * 4
    np.testing.assert_allclose(
        view.signal_yx[view.seen_yx], whole.signal_yx[view.seen_yx], atol=0.02
    )
    assert view.std_signal == pytest.approx(1.0)


def test_noise_is_found_beyond_the_cutoff_of_the_zone_plate():
    rng = np.random.default_rng(0)
    images = 0.3 * gaussian(0.0, 0.0, 96) + rng.normal(0, 0.004, (8, 96, 96))
    views = _views(
        TiltSeries(0.0, np.linspace(-20, 20, 8), images),
        Grid((4, 96, 96), 10.5),
        padded_domain(GRID, 20),
    )
    assert np.mean([view.std_signal for view in views]) == pytest.approx(0.004, rel=0.05)


def _views(series, grid, domain):
    return film_views(checked_film([series])[0][0], grid, domain)


def _series(**changes):
    parts = {
        "phi_deg": 0.0,
        "theta_deg_t": [-10.0, 10.0],
        "dichroic_tvu": np.ones((2, 16, 16)),
        "std_tvu": [0.1, 0.1],
    }
    return TiltSeries(**{**parts, **changes})


def _with(value, shape=(2, 16, 16)):
    array = np.ones(shape)
    array.flat[3] = value
    return array


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ([], "no tilt series"),
        ([_series(phi_deg=float("nan"))], "azimuth is not an angle"),
        ([_series(phi_deg=1000.0)], "azimuth is not an angle"),
        (
            [_series(theta_deg_t=[-10.0, 89.0])],
            "view 1 at 89 deg sees the film at 89 deg to its normal",
        ),
        ([_series(theta_deg_t=[-10.0, float("nan")])], "view 1 has the tilt nan"),
        ([_series(theta_deg_t=[-10.0])], "expected \\(1, v, u\\)"),
        ([_series(theta_deg_t=[])], "one per view"),
        ([_series(dichroic_tvu=np.ones((2, 16)))], "signal of shape \\(2, 16\\)"),
        ([_series(dichroic_tvu=np.ones((2, 2, 16)))], "at least 4 x 4"),
        ([_series(dichroic_tvu=_with(np.inf))], "mask those pixels as NaN"),
        ([_series(dichroic_tvu=np.full((2, 16, 16), np.nan))], "every pixel is masked"),
        ([_series(std_tvu=[0.1])], "standard deviation of shape \\(1,\\)"),
        ([_series(std_tvu=_with(np.nan))], "negative or NaN"),
        ([_series(std_tvu=_with(-1.0))], "negative or NaN"),
        ([_series(std_tvu=[np.inf, np.inf])], "no pixel has a finite"),
        ([_series(shift_vu_nm_t=[[0.0, 0.0]])], "shifts of shape \\(1, 2\\)"),
        ([_series(warp_tvu=np.eye(2)[None])], "warps of shape \\(1, 2, 2\\)"),
        ([_series(warp_tvu=[np.eye(2), np.diag([1.0, -1.0])])], "mirror nothing"),
        ([_series(shift_vu_nm_t=[[0.0, 9000.0]] * 2)], "no pixel falls on the volume"),
        ([_series(), _series(phi_deg=102.0, theta_deg_t=[0.0])], "series 2 \\(phi = 102.0 deg\\)"),
    ],
)
def test_refuses_in_one_line(series, words):
    with pytest.raises(InputError, match=words) as caught:
        resampled_film(series, Grid((4, 16, 16), 10.5))
    assert "\n" not in str(caught.value)


def test_noise_cannot_be_guessed_on_coarse_voxels():
    with pytest.raises(InputError, match="give the signal's standard deviation"):
        reconstruct([_series(std_tvu=None)], Grid((4, 16, 16), 30.0))
