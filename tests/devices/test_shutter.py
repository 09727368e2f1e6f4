"""The shutter on faked signals: its status decides, and to stop it is to close it."""

from collections.abc import Callable
from typing import Any

import pytest
from ophyd.sim import make_fake_device

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.shutter import Shutter


class Camera:
    """Counts how often an exposure is given up."""

    given_up = 0

    def give_up_exposure(self) -> None:
        self.given_up += 1


@pytest.fixture
def shutter() -> tuple[Any, Camera, Callable[[bool], None]]:
    camera = Camera()
    settings = load_configuration().shutter.model_copy(update={"timeout_s": 0.2})
    device = make_fake_device(Shutter)("FAKE:", name="shutter", settings=settings, camera=camera)
    device.status.sim_put("Closed")
    device.status.pvname = "FAKE:Status"

    def works(yes: bool) -> None:
        if yes:
            device.command.subscribe(
                lambda value, **_: device.status.sim_put("Open" if value else "Closed"), run=False
            )

    return device, camera, works


def test_a_shutter_is_open_when_its_status_says_so(shutter: Any) -> None:
    device, camera, works = shutter
    works(True)
    device.set("open").wait(2)
    assert device.read()["shutter"]["value"] == "Open"
    device.set("closed").wait(2)
    assert not device.is_open
    assert camera.given_up == 0


def test_a_shutter_that_sticks_is_told(shutter: Any) -> None:
    device, _, works = shutter
    works(False)
    with pytest.raises(TimeoutError, match=r"shutter: not open within 0.2 s; \S+ = Closed, .* old"):
        device.set("open").wait(2)
    assert device.command.get() == 0  # nor later
    device.status.sim_put("Open")
    with pytest.raises(TimeoutError, match=r"shutter: not closed within 0.2 s; \S+ = Open, .* old"):
        device.set("closed").wait(2)


def test_to_stop_a_shutter_is_to_give_up_the_exposure_and_close_it(shutter: Any) -> None:
    device, camera, works = shutter
    works(True)
    device.set("open").wait(2)
    device.stop(success=True)
    assert (device.is_open, camera.given_up) == (False, 1)
    with pytest.raises(ValueError, match="expected 'open' or 'closed'"):
        device.set("ajar")


def test_a_shutter_that_is_stopped_while_it_opens_finishes_quietly(shutter: Any) -> None:
    device, _, works = shutter
    works(False)
    status = device.set("open")
    device.stop(success=True)
    status.wait(0.15)
