"""A volume that follows one more view, against the whole solution with that view."""

from dataclasses import replace

import numpy as np
import pytest

from mistral_txm.reconstruction import Grid, InputError, TiltSeries, reconstruct
from mistral_txm.reconstruction.anticipation import reconstruct_ahead

COUNT = 11


@pytest.fixture
def some(striped_trilayer):
    """Every fourth view of each azimuth, with a fiducial in one and shifts, and the case."""
    chosen = slice(None, None, 4)
    series = []
    for one in striped_trilayer.series:
        part = one.of_views(chosen)
        signal = np.array(part.dichroic_tvu)
        signal[3, 20:28, 30:38] = np.nan
        shift = np.random.default_rng(3).normal(0, 3, (COUNT, 2))
        series.append(replace(part, dichroic_tvu=signal, shift_vu_nm_t=shift))
    return series, striped_trilayer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "azimuth", "number"), [("layers", 0, 3), ("layers", 1, 0), ("none", 1, COUNT - 1)]
)
def test_the_volume_with_the_view_is_nearly_that_of_the_whole_solution(
    some, prior, azimuth, number
):
    series, case = some
    layers_nm = case.layers_nm if prior == "layers" else ()
    whole = reconstruct(series, case.grid, prior=prior, layers_nm=layers_nm)
    new = series[azimuth].of_views([number])
    before = list(series)
    before[azimuth] = series[azimuth].of_views(np.arange(COUNT) != number)
    theta_deg = float(np.asarray(new.theta_deg_t)[0])
    volume, anticipation = reconstruct_ahead(
        before, case.grid, new.phi_deg, theta_deg, prior=prior, layers_nm=layers_nm
    )
    followed = anticipation.with_view(new, azimuth * COUNT + number)

    def off(one):
        return np.linalg.norm(one.m_czyx - whole.m_czyx) / np.linalg.norm(whole.m_czyx)

    # what is left is the prior and the continuation, which the whole solution takes from all views
    assert off(followed) < 0.5 * off(volume)
    np.testing.assert_allclose(
        followed.residual_rms_per_view, whole.residual_rms_per_view, rtol=0.2
    )
    np.testing.assert_allclose(followed.noise_per_view, whole.noise_per_view, rtol=1e-6)


@pytest.mark.slow
def test_without_the_next_view_it_is_the_volume_of_the_others(some):
    series, case = some
    ahead, _ = reconstruct_ahead(series, case.grid, 0.0, 10.0)
    alone = reconstruct(series, case.grid)
    size = np.abs(alone.m_czyx).max()
    np.testing.assert_allclose(ahead.m_czyx, alone.m_czyx, rtol=0, atol=1e-5 * size)


def test_what_cannot_be_anticipated_is_said():
    theta_deg = np.array([-20.0, 0.0, 20.0])
    views = np.random.default_rng(0).normal(size=(3, 16, 16))
    series = [TiltSeries(0.0, theta_deg, views, np.ones(3))]
    grid = Grid((6, 16, 16), 10.5)
    _, nothing = reconstruct_ahead(
        series, grid, 0.0, 30.0, prior="layers", layers_nm=[(-31.5, -10.5), (0.0, 10.5)]
    )
    assert nothing is None
    with pytest.raises(InputError, match="not linear in the views"):
        reconstruct_ahead(series, grid, 0.0, 30.0, prior="norm", layers_nm=[(-31.5, 31.5)])
    with pytest.raises(InputError, match="next view: 89 deg sees the film at"):
        reconstruct_ahead(series, grid, 0.0, 89.0)
    _, anticipation = reconstruct_ahead(series, grid, 0.0, 30.0)
    with pytest.raises(InputError, match="3 views, expected the one to come"):
        anticipation.with_view(series[0], 0)
