"""The offset between helicities on films whose contrast is a closed form, so that any offset is exact."""

import doctest

import numpy as np
import pytest

from mistral_txm.reconstruction import InputError, helicity
from mistral_txm.reconstruction.helicity import helicity_offset, moved, registered

N = 128
V, U = np.mgrid[:N, :N] - (N - 1) / 2
STD = 0.012


def stripes(v_pixels, u_pixels):
    """Domains of 37 pixels whose direction wanders, displaced by (v, u)."""
    v, u = V - v_pixels, U - u_pixels
    return 0.15 * np.sin(2 * np.pi / 37 * (u + 6 * np.sin(v / 25)))


def ball(v_pixels, u_pixels, place=(20.0, -15.0)):
    rho2 = (V - v_pixels - place[0]) ** 2 + (U - u_pixels - place[1]) ** 2
    return 1.2 * np.sqrt(np.maximum(25 - rho2, 0)) / 5


def exposed(offset, contrast=stripes, background=lambda v, u: 0.6, seed=0, std=STD):
    """Absorbances of both helicities, the offset apart, each with the noise that leaves `std` in their mean."""
    rng = np.random.default_rng(seed)
    half_v, half_u = offset[0] / 2, offset[1] / 2
    return tuple(
        background(sign * half_v, sign * half_u)
        + sign * contrast(sign * half_v, sign * half_u)
        + rng.normal(0, std * np.sqrt(2), (N, N))
        for sign in (1, -1)
    )


def test_examples():
    assert doctest.testmod(helicity).failed == 0


@pytest.mark.parametrize("offset", [(-1.3, 0.6), (0.3, -0.2), (3.0, 2.5)])
def test_offset_is_found_within_its_standard_deviation(offset):
    off, std = [], []
    for seed in range(4):
        found = helicity_offset(*exposed(offset, seed=seed), STD, 10.0)
        off.append(found.vu_nm / 10 - offset)
        std.append(found.std_vu_nm / 10)
    assert np.max(std) < 0.15
    assert np.sqrt(np.mean(np.square(off) / np.square(std))) < 1.6
    assert np.abs(np.mean(off, axis=0)).max() < 0.06


def test_gold_that_is_left_out_does_not_pull():
    gold = exposed((-1.3, 0.6), background=lambda v, u: 0.6 + ball(v, u))
    left_out = np.hypot(V - 20, U + 15) < 9
    found = helicity_offset(*gold, STD, 1.0, left_out_vu=left_out)
    assert np.abs(found.vu_nm - (-1.3, 0.6)).max() < 4 * found.std_vu_nm.max()


def test_contrast_in_one_direction_leaves_the_other_open():
    found = helicity_offset(
        *exposed((-1.3, 0.6), contrast=lambda v, u: 0.15 * np.sin((U - u) / 6)), STD, 1.0
    )
    assert found.vu_nm[1] == pytest.approx(0.6, abs=0.05)
    assert found.std_vu_nm[1] < 0.03
    assert found.std_vu_nm[0] > 1.0


@pytest.mark.parametrize(
    ("offset", "contrast", "background"),
    [
        ((0.0, 0.0), stripes, lambda v, u: 0.6),
        ((-1.3, 0.6), lambda v, u: 0.1, lambda v, u: 0.6),
        ((-1.3, 0.6), stripes, lambda v, u: np.cos((V - v) / 5) * np.cos((U - u) / 4)),
        ((0.0, 30.0), stripes, lambda v, u: 0.6),
    ],
    ids=["no offset", "no contrast", "structure of the sample's own", "far too large"],
)
def test_what_cannot_be_told_is_not_undone(offset, contrast, background):
    found = helicity_offset(*exposed(offset, contrast, background), STD, 1.0)
    assert not found.is_known


def test_registered_images_lie_on_each_other():
    plus, minus = exposed(
        (-1.3, 0.6), std=0.0, background=lambda v, u: 0.6 + 0.3 * np.cos((V - v) / 9)
    )
    plus, minus = registered(plus, minus, (-1.3, 0.6))
    inner = np.s_[8:-8, 8:-8]
    np.testing.assert_allclose(((plus - minus) / 2)[inner], stripes(0, 0)[inner], atol=2e-4)


def test_unknown_pixels_stay_unknown_and_spoil_no_others():
    image = stripes(0, 0)
    image[40, 50] = np.nan
    result = moved(image, (0.4, -0.7))
    known = np.isfinite(result)
    assert np.argwhere(~known[8:-8, 8:-8]).tolist() == [[32, 41], [32, 42], [33, 41], [33, 42]]
    known[:8] = known[-8:] = known[:, :8] = known[:, -8:] = False
    np.testing.assert_allclose(result[known], stripes(0.4, -0.7)[known], atol=0.01)


def test_refuses_in_one_line():
    with pytest.raises(InputError, match="shapes"):
        helicity_offset(np.ones((64, 64)), np.ones((64, 65)), STD, 1.0)
    with pytest.raises(InputError, match="expected a positive one"):
        helicity_offset(np.ones((64, 64)), np.ones((64, 64)), 0.0, 1.0)
