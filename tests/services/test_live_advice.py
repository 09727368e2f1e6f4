"""What the live reconstruction advises, on views whose noise and angles are known, and how it remembers volumes."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage

from mistral_txm.reconstruction import Volume
from mistral_txm.reconstruction.design import view_spectrum
from mistral_txm.services.live_advice import Advisor
from mistral_txm.services.live_history import History
from mistral_txm.services.truth import FoundSingularity

LAYERS = [(-40.0, 40.0)]
FIELD = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(96, 96)), 2.0)
FIELD /= FIELD.std()


def seen(places, std=0.01, signal=0.1):
    """Views of a field whose structure is coarser than some 50 nm."""
    rng, views = np.random.default_rng(1), []
    for time_s, (phi_deg, theta_deg) in enumerate(places):
        image = signal * FIELD + std * rng.normal(size=FIELD.shape)
        views.append(
            SimpleNamespace(
                time=float(time_s),
                angle=SimpleNamespace(phi_deg=phi_deg, theta_deg=theta_deg),
                signals=SimpleNamespace(phi_deg=phi_deg, theta_deg=theta_deg),
                quality=SimpleNamespace(noise=std),
                spectrum=view_spectrum(image, theta_deg, 10.5),
            )
        )
    return views


def test_an_azimuth_that_is_missing_would_tell_most():
    advisor = Advisor(10.5, LAYERS, None)
    measured = [(0.0, theta) for theta in (-40.0, -20.0, 0.0, 20.0)]
    advisor.look(seen(measured), [(0.0, 40.0), (102.0, 0.0), (102.0, 40.0)])
    advice = advisor.advice
    gains = [one["gain"] for one in advice["next_views"]]
    assert (advice["next_views"][0]["phi_deg"], advice["next_views"][0]["theta_deg"]) == (102, 40)
    assert gains == sorted(gains, reverse=True)
    assert "phi 102 deg, theta 40 deg would tell most" in advice["text"]


@pytest.mark.parametrize(
    ("std", "expected"), [(1e-4, "more repeats hardly help"), (0.2, "more repeats still help")]
)
def test_more_repeats_help_where_there_is_noise(std, expected):
    advisor = Advisor(10.5, LAYERS, None)
    places = [(phi, theta) for phi in (0.0, 90.0) for theta in (-40.0, -20.0, 0.0, 20.0, 40.0)]
    advisor.look(seen(places, std), [])
    assert advisor.advice["repeats_text"].startswith(expected)


def test_what_is_wanted_has_to_be_there_twice_in_each_azimuth():
    places = [(0.0, theta) for theta in (-40.0, -20.0, 0.0, 20.0)]
    advisor = Advisor(10.5, LAYERS, 500.0)
    reached = []
    for count in (3, 4):
        advisor.look(seen(places[:count]), [])
        reached.append(advisor.is_reached)
    assert reached == [False, True]
    assert advisor.advice["text"].startswith("the wanted resolution of 500 nm is reached")
    advisor.look(seen([*places, (102.0, 0.0)]), [])
    assert not advisor.is_reached
    never = Advisor(10.5, LAYERS, 5.0)
    for count in (3, 4):
        never.look(seen(places[:count]), [])
    assert not never.is_reached


def test_from_too_few_views_nothing_is_said():
    advisor = Advisor(10.5, LAYERS, None)
    assert not advisor.look(seen([(0.0, 0.0), (0.0, 5.0)]), [(0.0, 10.0)])
    assert advisor.resolution_nm is None
    assert advisor.advice["next_views"] == []


def point(x_nm, charge=-1.0, kind="Bloch point"):
    return FoundSingularity(x_nm, 0.0, 0.0, charge, kind, 84.0)


def test_sureness_is_in_how_many_of_the_last_volumes_it_was_there():
    history = History({})
    volumes = [[point(0.0)], [point(20.0), point(500.0)], [], [point(-20.0), point(500.0, 1.0)]]
    found = [history.singularities(points, 10.5) for points in volumes]
    assert all("sureness" not in one for of_volume in found[:2] for one in of_volume)
    assert [one["sureness"] for one in found[3]] == [0.75, 0.25]
    assert [one["sureness"] for one in history.singularities([point(0.0)], 10.5)] == [0.8]


def test_the_change_is_the_difference_to_the_volume_before():
    history = History({"history": [{"angles": 1}]})
    ones = np.ones((2, 4, 4), np.float32)
    for value in (1.0, 1.1):
        field = np.float32(value) * ones
        history.add({"angles": 2}, Volume(field, field, field, 10.5))
    assert [one.get("change") for one in history.entries] == [
        None,
        None,
        pytest.approx(0.1 / 1.1, rel=1e-3),
    ]
