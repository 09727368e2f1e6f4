"""What the operator is asked, and what is made of the answer."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from mistral_txm.devices.instrument import Instrument
from mistral_txm.plans.operator import (
    confirm_prompt,
    parse_azimuth,
    planned_azimuth_deg,
    turn_prompt,
    turn_sample,
)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["102"], 102.0),
        (["101.5"], 101.5),
        (["", "yes", "12 34", "nan", "1e3", "102 deg"], 102.0),
        (["12", "102"], 102.0),
        (["12", "12"], 12.0),
        (["12", "13", "12", "12"], 12.0),
        (["-102", "-102"], -102.0),
    ],
)
def test_an_answer_is_asked_for_until_it_is_an_angle_and_twice_if_it_is_not_the_planned_one(
    player: Callable[..., Any], stub_instrument: Instrument, answers: list[str], expected: float
) -> None:
    scene = player(*answers)
    scene.values["shutter"] = "open"
    scene.play(turn_sample(stub_instrument, 102.0))
    assert scene.values["azimuth"] == expected
    assert scene.answers == []
    assert all(planned_azimuth_deg(prompt) == 102.0 for prompt in scene.prompts)
    assert scene.values["shutter"] == "closed"
    # However often it is asked, it is told once, and what came of it.
    assert [start["plan_name"] for start in scene.starts] == ["turn_sample"]
    assert scene.log == [
        ("ask", "turn the sample to phi = 102 deg (it was at 0 deg)"),
        ("go_on", f"the sample stands at phi = {expected:g} deg"),
    ]
    assert scene.stops == ["success"]


def test_a_sample_that_stands_there_already_is_left_alone(
    player: Callable[..., Any], stub_instrument: Instrument
) -> None:
    scene = player()
    scene.values["azimuth"] = 101.5
    scene.play(turn_sample(stub_instrument, 102.0))
    assert scene.prompts == []
    assert scene.starts == []


@pytest.mark.parametrize("phi_deg", [0.0, 102.0, -45.5])
def test_a_prompt_tells_the_planned_azimuth(phi_deg: float) -> None:
    assert planned_azimuth_deg(turn_prompt(phi_deg, math.nan)) == phi_deg
    assert planned_azimuth_deg(turn_prompt(phi_deg, 12.0)) == phi_deg
    assert planned_azimuth_deg(confirm_prompt(phi_deg, 12.0)) == phi_deg
    assert planned_azimuth_deg("Go on?") is None


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "1 2", "--1", "361", "nan", "inf", "1e2", "１２x"]
)
def test_nonsense_is_not_an_angle(text: str) -> None:
    assert parse_azimuth(text) is None
