"""The camera's server: what it does not do in time, and settings with which nothing is exposed."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from mistral_txm.devices.area_detector import CameraNotReady
from tests.devices.exposed import refusal, values_after


@pytest.fixture
def impatient(ccd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up 0.3 s after the exposure should have ended."""
    monkeypatch.setattr(ccd, "settings", ccd.settings.model_copy(update={"timeout_s": 0.3}))


@pytest.mark.usefixtures("impatient")
def test_an_exposure_that_never_ends_is_stopped(ccd: Any, fault: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/hang").wait(120)
    fault("ccd_hang", 1)
    line = refusal(ccd, TimeoutError)
    expected = (
        r"no frame within 0.5 s of an exposure of 0.2 s; SIM:CCD:cam1:Acquire_RBV = 1, 0.[4-9] s "
        r"old; the camera was stopped: take the exposure again$"
    )
    assert re.search(expected, line)
    assert ccd.cam.detector_state.get(as_string=True) == "Aborted"
    assert values_after(ccd)["ccd_frame_number"] == 0


@pytest.mark.usefixtures("impatient")
def test_a_camera_that_does_not_even_stop_is_told(
    ccd: Any, fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ccd, "control_timeout_s", 0.2)
    ccd.frame_file.set(f"{tmp_path.name}/deaf").wait(120)
    fault("ccd_hang", 1)
    put = ccd.cam.acquire.put
    monkeypatch.setattr(
        ccd.cam.acquire, "put", lambda value, **options: put(value, **options) if value else None
    )
    assert "does not stop either: check SIM:CCD:cam1:Acquire" in refusal(ccd, TimeoutError)
    monkeypatch.undo()
    put(0)


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("min_x", 8, r"cam1:MinX_RBV = 8, expected 0"),
        ("size.size_y", 128, r"cam1:SizeY_RBV = 128, expected 256"),
        ("bin_y", 2, r"cam1:BinY_RBV = 2, expected 1"),
        ("data_type", 1, r"cam1:DataType_RBV = UInt8, expected UInt16"),
    ],
)
def test_another_region_binning_or_type_is_refused_before_anything_is_exposed(
    ccd: Any, tmp_path: Path, attribute: str, value: int, reason: str
) -> None:
    signal = ccd.cam
    for part in attribute.split("."):
        signal = getattr(signal, part)
    usual = signal.get()
    name = attribute.replace(".", "_")
    ccd.frame_file.set(f"{tmp_path.name}/{name}").wait(120)
    exposures = ccd.cam.array_counter.get()
    try:
        set_to(signal, value)
        line = refusal(ccd, CameraNotReady)
        assert re.search(reason, line)
        assert ccd.cam.array_counter.get() == exposures
        with pytest.raises(CameraNotReady, match=reason):
            ccd.frame_file.set(f"{tmp_path.name}/{name}_2").wait(120)
    finally:
        set_to(signal, usual)
    ccd.frame_file.set(f"{tmp_path.name}/{name}_3").wait(120)
    assert values_after(ccd)["ccd_frame_number"] == 0


def set_to(signal: Any, value: int) -> None:
    """Write, and wait until everybody who monitors it knows."""
    known = threading.Event()

    def look(value: int, **_: Any) -> None:
        if value == wanted:
            known.set()

    wanted = value
    subscription = signal.subscribe(look)
    signal.put(value, use_complete=True, wait=True, timeout=120)
    assert known.wait(120)
    signal.unsubscribe(subscription)


def test_a_warm_camera_does_not_expose(ccd: Any, fault: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/warm").wait(120)
    exposures = ccd.cam.array_counter.get()
    fault("cooler_off", 1)
    line = refusal(ccd, CameraNotReady)
    assert "TemperatureActual = 20.0 C, expected -50.0 C within 2 C; check the camera's" in line
    assert ccd.cam.array_counter.get() == exposures
    fault("cooler_off", 0)
    assert values_after(ccd)["ccd_frame_number"] == 0
