"""Another control system is an entry in a table: here of ophyd's soft positioners, under a scheme of their own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky import RunEngine
from ophyd import Component, Device, Signal, SoftPositioner
from ophyd.sim import SynSignalRO
from ophyd.status import Status

from mistral_txm.devices.configuration import (
    Configuration,
    ControlSystemSettings,
    load_configuration,
)
from mistral_txm.devices.control_systems import CONTROL_SYSTEMS, ControlSystem
from mistral_txm.devices.instrument import Instrument, make_instrument
from mistral_txm.devices.strict_toml import ConfigurationError


class SoftAxis(SoftPositioner):  # type: ignore[misc]  # ophyd is untyped
    """A motor of the other control system."""

    def __init__(self, address: str, *, name: str, settings: Any) -> None:
        limits = (settings.low_limit, settings.high_limit)
        super().__init__(name=name, egu=settings.unit, limits=limits, init_pos=limits[0])
        self.address, self.settings = address, settings

    def is_at(self, position: float) -> bool:
        return bool(abs(self.position - position) <= self.settings.tolerance)


class SoftShutter(Device):  # type: ignore[misc]  # ophyd is untyped
    """A shutter of the other control system."""

    status = Component(Signal, value="closed")

    def __init__(self, address: str, *, name: str, settings: Any, camera: Any) -> None:
        super().__init__(name=name)

    @property
    def is_open(self) -> bool:
        return bool(self.status.get() == "open")

    def set(self, new_position: str) -> Status:
        status: Status = self.status.set(new_position)
        return status


class SoftCcd(Device):  # type: ignore[misc]  # ophyd is untyped
    """A camera of the other control system, as far as nobody exposes."""

    acquire_time = Component(Signal, value=1.0)

    def __init__(
        self,
        address: str,
        *,
        name: str,
        settings: Any,
        frames_directory: Path,
        control_timeout_s: float,
    ) -> None:
        super().__init__(name=name)
        self.frames_directory = frames_directory

    @property
    def used_signals(self) -> tuple[Any, ...]:
        return (self.acquire_time,)


def reading(address: str, *, name: str) -> Any:
    return SynSignalRO(lambda: 1.0, name=name)


@pytest.fixture
def set_up() -> list[ControlSystemSettings]:
    return []


@pytest.fixture
def soft(monkeypatch: pytest.MonkeyPatch, set_up: list[ControlSystemSettings]) -> Configuration:
    """A configuration in which every device is of the other control system."""
    system = ControlSystem(
        axis=SoftAxis, shutter=SoftShutter, reading=reading, ccd=SoftCcd, set_up=set_up.append
    )
    monkeypatch.setitem(CONTROL_SYSTEMS, "soft", system)
    return renamed("soft", exclude={"simulation"})


def renamed(scheme: str, **options: Any) -> Configuration:
    """Return the packaged configuration with another scheme in all addresses."""
    text = load_configuration().model_dump_json(exclude_none=True, **options)
    return Configuration.model_validate_json(
        text.replace("ca://", f"{scheme}://").replace('"ca"', f'"{scheme}"')
    )


@pytest.fixture
def instrument(soft: Configuration, tmp_path: Path) -> Instrument:
    devices = make_instrument(soft, tmp_path)
    devices.connect(0.1)
    return devices


def test_each_control_system_gets_its_section_before_its_devices(
    instrument: Instrument, set_up: list[ControlSystemSettings]
) -> None:
    assert set_up == [load_configuration().control_systems["ca"]]
    assert instrument.theta.address == "SIM:GON:THETA"


def test_the_composite_devices_work_on_another_control_system(instrument: Instrument) -> None:
    assert instrument.polarization.helicity == 0
    assert instrument.sample_position.where == "between"
    RE = RunEngine({})
    RE(bps.mv(instrument.energy, 707.4))
    for helicity, jaws_mm in ((1, (1.5, 2.5)), (-1, (-2.5, -1.5))):
        RE(bps.mv(instrument.polarization, helicity))
        assert instrument.polarization.helicity == helicity
        assert (instrument.jaw_down.position, instrument.jaw_up.position) == jaws_mm
    for place, x_um in (("out", 200.0), ("in", 0.0)):
        RE(bps.mv(instrument.sample_position, place))
        assert instrument.sample_position.where == place
        assert instrument.sample_x.position == x_um


def test_a_scheme_without_devices_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^tango://\S+: no devices for this scheme; known are ca://$"
    ):
        make_instrument(renamed("tango"), tmp_path)


def test_names_that_do_not_answer_are_told_by_any_control_system(
    soft: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = SimpleNamespace(name="dead", connected=False)

    def wait(timeout: float) -> None:
        raise TimeoutError

    silent.wait_for_connection = wait
    monkeypatch.setattr(SoftCcd, "used_signals", (silent,))
    with pytest.raises(TimeoutError, match=r"1 of \d+ names did not answer within 0.1 s: dead;"):
        make_instrument(soft, tmp_path).connect(0.1)
