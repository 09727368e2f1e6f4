"""The progress line."""

from datetime import datetime

import pytest

from mistral_txm.profile_collection.progress import Progress

PLAN = [
    [phi, theta, helicity, 2]
    for phi in (0.0, 102.0)
    for theta in (-5.0, 5.0)
    for helicity in (1, -1)
]


def event(phi, theta, helicity, repeat):
    names = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat")
    return dict(zip(names, (phi, theta, helicity, repeat), strict=True))


@pytest.fixture
def progress():
    return Progress(PLAN, started_s=100.0)


def test_before_the_first_exposure_there_is_no_end(progress):
    assert progress.line(110.0, datetime(2026, 11, 21, 3)) == "flats and darks"


def test_where_it_is_and_when_it_ends(progress):
    for key in ((0.0, -5.0, 1, 0), (0.0, -5.0, 1, 1), (0.0, -5.0, -1, 0), (0.0, -5.0, -1, 1)):
        progress.count(event(*key))
    line = progress.line(3700.0, datetime(2026, 11, 21, 3))
    assert line == ("phi 1/2, theta 1/2 (-5 deg), helicity -, repeat 2/2, 25 %, ends Sat 06:00")


def test_an_exposure_that_was_repeated_counts_once(progress):
    for _ in range(2):
        progress.count(event(102.0, 5.0, -1, 1))
    assert "phi 2/2, theta 2/2 (+5 deg), helicity -, repeat 2/2, 6 %" in progress.line(
        160.0, datetime(2026, 11, 21)
    )
