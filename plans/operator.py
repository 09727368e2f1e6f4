"""What a plan asks the operator: to turn the sample by hand, and to say how it stands now."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.plans.exposing import note
from mistral_txm.plans.opened_runs import opened_runs

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


AGREEMENT_DEG = 1.0
"""An answer further than this from the plan has to be given twice."""


def turn_prompt(phi_deg: float, now_deg: float) -> str:
    """Return the request to turn the sample.

    >>> turn_prompt(102.0, 0.0)
    'Turn the sample to phi = 102 deg (it was at 0 deg), mount it, and type its azimuth in deg: '
    """
    return f"Turn the sample {_turn(phi_deg, now_deg)}, mount it, and type its azimuth in deg: "


def _turn(phi_deg: float, now_deg: float) -> str:
    before = "" if math.isnan(now_deg) else f" (it was at {now_deg:g} deg)"
    return f"to phi = {phi_deg:g} deg{before}"


def confirm_prompt(phi_deg: float, answer_deg: float) -> str:
    """Return the question after an answer that is far from the plan."""
    return (
        f"The plan says phi = {phi_deg:g} deg, you typed {answer_deg:g}: type it again to keep it, "
        "or the right azimuth in deg: "
    )


def planned_azimuth_deg(prompt: str) -> float | None:
    """Return the azimuth that a prompt asks for; None if it asks for something else.

    >>> planned_azimuth_deg(turn_prompt(102.0, 0.0))
    102.0
    """
    found = re.search(r"phi = (-?\d+(?:\.\d+)?(?:e[-+]?\d+)?) deg", prompt)
    return None if found is None else float(found[1])


def parse_azimuth(answer: str) -> float | None:
    """Return the angle that a person typed, in degrees; None if it is not one.

    >>> parse_azimuth(" 102 deg"), parse_azimuth("101,5"), parse_azimuth("1020")
    (102.0, 101.5, None)
    """
    found = re.fullmatch(r"\s*([-+]?\d+(?:[.,]\d*)?)\s*(?:deg|°)?\s*", answer)
    if found is None:
        return None
    angle_deg = float(found[1].replace(",", "."))
    return angle_deg if abs(angle_deg) <= 360 else None


def turn_sample(instrument: Instrument, phi_deg: float) -> MsgGenerator[None]:
    """Ask the operator to turn the sample to an azimuth, unless it stands there already.

    The shutter is closed first. The answer is asked again until it is an angle; one that is more
    than 1 deg from the plan has to be given twice. `instrument.azimuth` then holds what was said.
    Question and answer are the log of a run of their own: readers of documents know that a person is waited for.
    """
    now_deg = yield from bps.rd(instrument.azimuth, default_value=math.nan)
    if abs(now_deg - phi_deg) <= AGREEMENT_DEG:
        return
    yield from bps.mv(instrument.shutter, "closed")

    def asked(_uids: object) -> MsgGenerator[None]:
        yield from note(instrument, "ask", f"turn the sample {_turn(phi_deg, now_deg)}")
        given_deg = yield from _azimuth_given(phi_deg, now_deg)
        yield from bps.mv(instrument.azimuth, given_deg)
        yield from note(instrument, "go_on", f"the sample stands at phi = {given_deg:g} deg")

    yield from opened_runs({None: {"plan_name": "turn_sample"}}, asked)


def _azimuth_given(phi_deg: float, now_deg: float) -> MsgGenerator[float]:
    """Ask until the answer is an angle that is meant."""
    prompt, doubtful_deg = turn_prompt(phi_deg, now_deg), None
    while True:
        yield from bps.checkpoint()
        answer = yield from bps.input_plan(prompt)
        given_deg = parse_azimuth(answer or "")
        if given_deg is None:
            prompt = f"{answer!r} is not an angle. {turn_prompt(phi_deg, now_deg)}"
            continue
        if abs(given_deg - phi_deg) <= AGREEMENT_DEG or given_deg == doubtful_deg:
            return given_deg
        prompt, doubtful_deg = confirm_prompt(phi_deg, given_deg), given_deg
