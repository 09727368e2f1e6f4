"""The shutter on the simulated beamline, when it sticks, over real Channel Access."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ophyd import EpicsSignal

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.shutter import Shutter

CONFIGURATION = load_configuration()


@pytest.fixture
def shutter(instrument: Any) -> Iterator[Shutter]:
    settings = CONFIGURATION.shutter.model_copy(update={"timeout_s": 0.2})
    device = Shutter(
        settings.address.name, name="shutter", settings=settings, camera=instrument.ccd
    )
    device.wait_for_connection(timeout=120)
    yield device
    device.set("closed").wait(120)
    device.destroy()


@pytest.fixture
def stuck(instrument: Any) -> Iterator[dict[str, EpicsSignal]]:
    """Return the faults by the state in which the shutter sticks; both are off in the end."""
    assert CONFIGURATION.simulation is not None
    prefix = CONFIGURATION.simulation.faults_address.name
    faults = {
        state: EpicsSignal(f"{prefix}shutter_stuck_{state}", name=state)
        for state in ("open", "closed")
    }
    for signal in faults.values():
        signal.wait_for_connection(timeout=120)
    yield faults
    for signal in faults.values():
        signal.set(0).wait(120)
        signal.destroy()


def test_a_shutter_that_sticks_closed_is_told_and_does_not_open_later(
    shutter: Shutter, stuck: dict[str, EpicsSignal]
) -> None:
    stuck["closed"].set(1).wait(120)
    with pytest.raises(
        TimeoutError,
        match=r"shutter: not open within 0.2 s; SIM:SHUTTER:Status = Closed, \d+.\d s old; check",
    ):
        shutter.set("open").wait(120)
    stuck["closed"].set(0).wait(120)
    assert shutter.status.get(use_monitor=False) == "Closed"
    shutter.set("open").wait(120)
    assert shutter.is_open


def test_an_exposure_that_a_stuck_shutter_stopped_is_taken_when_it_moves_again(
    instrument: Any, shutter: Shutter, stuck: dict[str, EpicsSignal], tmp_path: Path
) -> None:
    ccd = instrument.ccd
    ccd.stage()
    ccd.cam.acquire_time.set(0.2).wait(120)
    ccd.frame_file.set(f"{tmp_path.name}/stuck").wait(120)
    stuck["closed"].set(1).wait(120)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"shutter: not open within 0.2 s"):
            shutter.set("open").wait(120)
    shutter.stop(success=False)
    stuck["closed"].set(0).wait(120)
    shutter.set("open").wait(120)
    ccd.trigger().wait(120)
    assert ccd.mean_counts.get() > 400  # there was light: 300 without
    assert ccd.frame_number.get() == 0
    ccd.unstage()


def test_a_shutter_that_sticks_open_is_told(
    shutter: Shutter, stuck: dict[str, EpicsSignal]
) -> None:
    shutter.set("open").wait(120)
    stuck["open"].set(1).wait(120)
    with pytest.raises(TimeoutError, match=r"shutter: not closed within 0.2 s; .* = Open, .* old"):
        shutter.set("closed").wait(120)
    stuck["open"].set(0).wait(120)
    shutter.set("closed").wait(120)
    assert not shutter.is_open


def test_a_shutter_that_was_just_stopped_opens_again(shutter: Shutter) -> None:
    """What it knew of its status from before it was stopped does not count as open."""
    for _ in range(20):
        shutter.set("open").wait(120)
        shutter.stop(success=True)
        shutter.set("open").wait(120)
        assert shutter.command.get(use_monitor=False) == 1
        assert shutter.status.get(use_monitor=False) == "Open"
