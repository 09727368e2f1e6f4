"""The simulated beamline's camera, and its faults."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ophyd import EpicsSignal


@pytest.fixture
def ccd(instrument: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("mistral_txm.devices.ccd.MONITOR_TIMEOUT_S", 0.1)
    camera = instrument.ccd
    camera.stage()
    camera.cam.acquire_time.set(0.2).wait(120)
    instrument.shutter.set("open").wait(120)
    yield camera
    instrument.shutter.set("closed").wait(120)
    camera.unstage()


@pytest.fixture
def fault(simulated_beamline: Any) -> Iterator[Callable[[str, float], None]]:
    """Turn faults of the simulated beamline on; all are off after the test."""
    signals: dict[str, Any] = {}

    def turn(name: str, value: float) -> None:
        signal = signals.setdefault(name, EpicsSignal(f"SIM:FAULT:{name}", name=name))
        signal.wait_for_connection(timeout=120)
        signal.put(value, use_complete=True, wait=True, timeout=120)

    yield turn
    for name in signals:
        turn(name, 0)
