"""The devices on the simulated beamline, over real Channel Access."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mistral_txm.devices.ccd import DATASET, FrameRefused
from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.instrument import make_instrument


def test_axes_move(instrument: Any) -> None:
    instrument.theta.set(-3.0).wait(5)
    assert instrument.theta.position == -3.0
    instrument.theta.set(0.0).wait(5)
    reading = instrument.theta.read()
    assert list(reading) == ["theta"]
    assert instrument.theta.describe()["theta"]["units"] == "deg"


def test_the_polarization_follows_the_jaws(instrument: Any) -> None:
    instrument.polarization.set(-1).wait(5)
    assert instrument.polarization.helicity == -1
    instrument.jaw_up.set(-1.0).wait(5)
    assert instrument.polarization.helicity == 0
    instrument.polarization.set(1).wait(5)
    assert instrument.polarization.helicity == 1
    assert instrument.zone_plate_z.position == 0.0


def test_the_energy_takes_up_its_backlash(instrument: Any) -> None:
    instrument.energy.set(707.4).wait(5)
    assert instrument.energy.is_at(707.4)


def test_names_that_do_not_answer_are_told(instrument: Any, tmp_path: Path) -> None:
    text = load_configuration().model_dump(mode="json", exclude_none=True)
    text["shutter"]["address"] = "ca://SIM:NOWHERE:"
    wrong = type(instrument.configuration).model_validate(text)
    with pytest.raises(TimeoutError, match=r"2 of \d+ names did not answer .* SIM:NOWHERE:Cmd"):
        make_instrument(wrong, tmp_path).connect(0.5)


@pytest.fixture
def ccd(instrument: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr("mistral_txm.devices.ccd.MONITOR_TIMEOUT_S", 0.1)
    camera = instrument.ccd
    camera.stage()
    camera.cam.acquire_time.set(1.0).wait(5)
    instrument.shutter.set("open").wait(5)
    yield camera
    instrument.shutter.set("closed").wait(5)
    camera.unstage()


def values(ccd: Any) -> dict[str, Any]:
    return {name: reading["value"] for name, reading in ccd.read().items()}


def test_a_frame_is_on_disk_when_the_trigger_is_done(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/frames").wait(5)
    path = ccd.frames_directory / tmp_path.name / "frames.h5"
    for number in range(3):
        ccd.trigger().wait(5)
        read = values(ccd)
        with h5py.File(f"{path}.tmp", "r", swmr=True) as file:
            frames = file[DATASET]
            assert frames.shape == (number + 1, 256, 256)
            frame_vu = frames[number]
        assert read["ccd_frame_number"] == number
        assert read["ccd_frame_crc32"] == zlib.crc32(frame_vu.astype("<u2").tobytes())
        assert read["ccd_mean_counts"] == pytest.approx(frame_vu.mean())
        assert read["ccd_exposure_s"] == 1.0
        assert read["ccd_saturated_fraction"] == np.mean(frame_vu == 65535)
        names = [name for name, _ in ccd.collect_asset_docs()]
        assert names == ["stream_resource"] * (number == 0) + ["stream_datum"]
        assert list(ccd.collect_asset_docs()) == []
    assert set(ccd.describe()) - set(read) == {"ccd"}
    ccd.frame_file.set(None).wait(5)
    assert path.exists()
    assert not path.with_name("frames.h5.tmp").exists()


def test_a_name_that_is_taken_gets_a_number(ccd: Any, tmp_path: Path) -> None:
    for _ in range(2):
        ccd.frame_file.set(f"{tmp_path.name}/again").wait(5)
        ccd.trigger().wait(5)
        ccd.frame_file.set(None).wait(5)
    folder = ccd.frames_directory / tmp_path.name
    assert sorted(path.name for path in folder.iterdir()) == ["again.h5", "again_2.h5"]


def test_to_open_the_file_that_is_open_changes_nothing(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/same").wait(5)
    ccd.trigger().wait(5)
    list(ccd.collect_asset_docs())
    ccd.frame_file.set(f"{tmp_path.name}/same").wait(5)
    ccd.trigger().wait(5)
    assert values(ccd)["ccd_frame_number"] == 1


def test_a_frame_that_nobody_collected_is_handed_over_again(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/kept").wait(5)
    ccd.trigger().wait(5)
    before = values(ccd)
    ccd.trigger().wait(5)
    assert values(ccd) == before
    assert len(list(ccd.collect_asset_docs())) == 2
    ccd.trigger().wait(5)
    assert values(ccd)["ccd_frame_number"] == 1


def test_an_exposure_needs_a_file(ccd: Any) -> None:
    with pytest.raises(RuntimeError, match=r"no frame file is open; set ccd.frame_file first"):
        ccd.trigger()


def test_a_frame_of_another_type_is_refused(
    ccd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ccd.cam.data_type, "get", lambda **_: "UInt8")
    with pytest.raises(FrameRefused, match=r"DataType_RBV = UInt8, expected UInt16"):
        ccd.frame_file.set(f"{tmp_path.name}/type").wait(5)


def test_a_frame_of_another_size_is_refused(
    ccd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ccd, "_sensor_shape", lambda: (256, 512))
    ccd.frame_file.set(f"{tmp_path.name}/size").wait(5)
    with pytest.raises(
        FrameRefused, match=r"are uint16 \(256, 256\), expected uint16 \(256, 512\)"
    ):
        ccd.trigger().wait(5)


def test_a_frame_that_did_not_come_is_told(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/lost").wait(5)
    ccd.hdf1.enable.set("Disable").wait(5)
    with pytest.raises(FrameRefused, match=r"NumCaptured_RBV = 0 after exposure 1 of lost.h5"):
        ccd.trigger().wait(5)


def test_the_previous_frame_again_is_refused(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/stale").wait(5)
    ccd.trigger().wait(5)
    list(ccd.collect_asset_docs())
    ccd._unique_id += 1
    with pytest.raises(FrameRefused, match=r"UniqueId_RBV is still \d+: the camera handed out"):
        ccd.trigger().wait(5)


def test_a_folder_that_cannot_be_made_is_told(ccd: Any, tmp_path: Path) -> None:
    folder = ccd.frames_directory / tmp_path.name
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where a folder should be")
    with pytest.raises(OSError, match=tmp_path.name):
        ccd.frame_file.set(f"{tmp_path.name}/none").wait(5)
