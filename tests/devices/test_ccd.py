"""The CCD on the simulated beamline, over real Channel Access: frames, and every fault of a camera."""

import os
import re
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mistral_txm.devices.frame_store import DATASET, FrameRefused, OpenFile
from tests.devices.exposed import refusal, values, values_after


def test_a_frame_is_on_disk_when_the_trigger_is_done(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/frames").wait(120)
    path = ccd.frames_directory / tmp_path.name / "frames.h5"
    for number in range(3):
        ccd.trigger().wait(120)
        read = values(ccd)
        with h5py.File(f"{path}.tmp", "r", swmr=True) as file:
            frames = file[DATASET]
            assert frames.shape == (number + 1, 256, 256)
            frame_vu = frames[number]
        assert read["ccd_frame_number"] == number
        assert read["ccd_frame_crc32"] == zlib.crc32(frame_vu.astype("<u2").tobytes())
        assert read["ccd_mean_counts"] == pytest.approx(frame_vu.mean())
        assert read["ccd_exposure_s"] == 0.2
        assert read["ccd_saturated_fraction"] == 0
        assert read["ccd_bright_counts"] == np.quantile(frame_vu, 0.999, method="inverted_cdf")
        names = [name for name, _ in ccd.collect_asset_docs()]
        assert names == ["stream_resource"] * (number == 0) + ["stream_datum"]
        assert list(ccd.collect_asset_docs()) == []
    assert set(ccd.describe()) - set(read) == {"ccd"}
    ccd.frame_file.set(None).wait(120)
    assert path.exists()
    assert not path.with_name("frames.h5.tmp").exists()


def test_a_name_that_is_taken_gets_a_number(ccd: Any, tmp_path: Path) -> None:
    for _ in range(2):
        ccd.frame_file.set(f"{tmp_path.name}/again").wait(120)
        ccd.trigger().wait(120)
        ccd.frame_file.set(None).wait(120)
    folder = ccd.frames_directory / tmp_path.name
    assert sorted(path.name for path in folder.iterdir()) == ["again.h5", "again_2.h5"]


def test_to_open_the_file_that_is_open_changes_nothing(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/same").wait(120)
    ccd.trigger().wait(120)
    list(ccd.collect_asset_docs())
    ccd.frame_file.set(f"{tmp_path.name}/same").wait(120)
    ccd.trigger().wait(120)
    assert values(ccd)["ccd_frame_number"] == 1


def test_a_frame_that_nobody_collected_is_handed_over_again(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/kept").wait(120)
    ccd.trigger().wait(120)
    before = values(ccd)
    ccd.trigger().wait(120)
    assert values(ccd) == before
    assert len(list(ccd.collect_asset_docs())) == 2
    ccd.trigger().wait(120)
    assert values(ccd)["ccd_frame_number"] == 1


def counts_written(ccd: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect what is written to the camera's counter."""
    written: list[int] = []
    put = ccd.cam.array_counter.put

    def spy(value: int, **options: Any) -> None:
        written.append(value)
        put(value, **options)

    monkeypatch.setattr(ccd.cam.array_counter, "put", spy)
    return written


def test_the_camera_counts_from_the_number_of_the_exposure(
    ccd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = counts_written(ccd, monkeypatch)
    ccd.frame_file.set(f"{tmp_path.name}/numbered").wait(120)
    for number, expected_writes in ((70, [70]), (71, [70]), (72, [70]), (70, [70, 70])):
        ccd.exposure_number.set(number).wait(120)
        values_after(ccd)
        assert ccd.hdf1.unique_id.get() == ccd.cam.array_counter.get() == number + 1
        assert written == expected_writes
    assert ccd.exposure_number.get() == 71  # left alone, it counts by itself
    values_after(ccd)
    assert written == [70, 70]
    assert "ccd_exposure_number" not in ccd.read()


def test_a_counter_that_somebody_else_moved_is_set_back(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/moved").wait(120)
    ccd.exposure_number.put(5)
    values_after(ccd)
    ccd.cam.array_counter.put(1000, use_complete=True, wait=True, timeout=120)
    line = refusal(ccd, FrameRefused)
    assert "SIM:CCD:HDF1:UniqueId_RBV = 1001, expected 7: somebody else exposes, or sets" in line
    values_after(ccd)
    assert ccd.hdf1.unique_id.get() == 7
    ccd.cam.array_counter.put(1000, use_complete=True, wait=True, timeout=120)
    ccd.frame_file.set(f"{tmp_path.name}/moved_before").wait(120)
    values_after(ccd)
    assert ccd.hdf1.unique_id.get() == 8


def test_a_frame_that_was_not_counted_as_this_exposure_is_refused(
    ccd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/deaf_counter").wait(120)
    ccd.exposure_number.put(5)
    values_after(ccd)
    monkeypatch.setattr(
        ccd.cam.array_counter, "put", lambda value, callback=None, **_: callback and callback()
    )
    ccd.exposure_number.put(30)
    line = refusal(ccd, FrameRefused)
    assert "SIM:CCD:HDF1:UniqueId_RBV = 7, expected 31: somebody else exposes" in line
    monkeypatch.undo()
    values_after(ccd)
    assert ccd.hdf1.unique_id.get() == 31


def frames_of(ccd: Any, folder: Path, name: str) -> Any:
    ccd.frame_file.set(None).wait(120)
    with h5py.File(ccd.frames_directory / folder.name / f"{name}.h5") as file:
        return file[DATASET][()]


def test_the_same_exposure_is_the_same_frame_in_whatever_file(ccd: Any, tmp_path: Path) -> None:
    """So a row of exposures that was cut in the middle of a file goes on as if it had not been."""
    rows = {"whole": range(4), "cut": range(2), "rest": (2, 3)}
    frames = {}
    for name, numbers in rows.items():
        ccd.frame_file.set(f"{tmp_path.name}/{name}").wait(120)
        for number in numbers:
            ccd.exposure_number.put(number)
            values_after(ccd)
        frames[name] = frames_of(ccd, tmp_path, name)
    np.testing.assert_array_equal(np.concatenate([frames["cut"], frames["rest"]]), frames["whole"])
    assert len({frame_vu.tobytes() for frame_vu in frames["whole"]}) == 4


def test_a_discarded_frame_is_forgotten_and_taken_again(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/discarded").wait(120)
    ccd.exposure_number.put(3)
    ccd.discard.set("nothing has been taken yet").wait(120)
    for expected_number in (0, 1):
        ccd.trigger().wait(120)
        assert values(ccd)["ccd_frame_number"] == expected_number
        ccd.discard.set("the light was lost").wait(120)
        assert list(ccd.collect_asset_docs()) == []
    ccd.trigger().wait(120)
    documents = dict(ccd.collect_asset_docs())
    assert list(documents) == ["stream_resource", "stream_datum"]
    assert documents["stream_datum"]["indices"] == {"start": 2, "stop": 3}
    assert values(ccd)["ccd_frame_number"] == 2
    ccd.discard.set("too late: it was collected").wait(120)
    assert ccd.exposure_number.get() == 4
    values_after(ccd)
    frames_tvu = frames_of(ccd, tmp_path, "discarded")
    # Three times the same exposure: the simulated noise is drawn by its number.
    np.testing.assert_array_equal(frames_tvu[0], frames_tvu[1])
    np.testing.assert_array_equal(frames_tvu[0], frames_tvu[2])
    assert not np.array_equal(frames_tvu[2], frames_tvu[3])


def test_an_exposure_needs_a_file(ccd: Any) -> None:
    with pytest.raises(RuntimeError, match=r"no frame file is open; set ccd.frame_file first"):
        ccd.trigger()


def test_a_file_of_another_size_or_type_is_refused(tmp_path: Path) -> None:
    file = OpenFile("f", tmp_path / "f.h5", "uid", (4, 6))
    for shape_vu, dtype in (((4, 8), np.uint16), ((4, 6), np.uint8)):
        with h5py.File(file.temporary_path, "w", libver="latest") as written:
            written[DATASET] = np.zeros((1, *shape_vu), dtype)
        with pytest.raises(FrameRefused, match=r"are uint.* \(4, .\), expected uint16 \(4, 6\)"):
            file.read(0)
    with pytest.raises(FrameRefused, match="frame 3 cannot be read back"):
        OpenFile("g", tmp_path / "g.h5", "uid", (4, 6)).read(3)


def test_a_frame_that_did_not_come_is_told(ccd: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/lost").wait(120)
    ccd.hdf1.enable.set("Disable").wait(120)
    with pytest.raises(FrameRefused, match=r"NumCaptured_RBV = 0 after exposure 1 of lost.h5"):
        ccd.trigger().wait(120)
    assert values_after(ccd)["ccd_frame_number"] == 0  # the next one puts it back


def test_a_folder_that_cannot_be_made_is_told(ccd: Any, tmp_path: Path) -> None:
    folder = ccd.frames_directory / tmp_path.name
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where a folder should be")
    with pytest.raises(OSError, match=tmp_path.name):
        ccd.frame_file.set(f"{tmp_path.name}/none").wait(120)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "ccd_repeated_id",
            r"UniqueId_RBV = 9, expected 10: the camera handed out its previous frame again; take",
        ),
        ("ccd_repeated_frame", r"frame 1 of .*h5 equals the one before bit by bit"),
    ],
)
def test_the_previous_frame_is_refused(
    ccd: Any, fault: Any, tmp_path: Path, name: str, reason: str
) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/{name}").wait(120)
    ccd.exposure_number.put(8)
    values_after(ccd)
    fault(name, 1)
    assert re.search(reason, refusal(ccd, FrameRefused))
    assert values_after(ccd)["ccd_frame_number"] == 2  # the refused one is in the file, too
    assert ccd.hdf1.unique_id.get() == 10


@pytest.mark.parametrize("name", ["ccd_repeated_id", "ccd_repeated_frame"])
def test_the_previous_frame_is_refused_under_the_number_that_it_had(
    ccd: Any, fault: Any, tmp_path: Path, name: str
) -> None:
    """As in a scan with one exposure at each point, where all of them have the number 0."""
    ccd.frame_file.set(f"{tmp_path.name}/{name}_0").wait(120)
    for exposure_s in (0.2, 0.3):
        ccd.cam.acquire_time.set(exposure_s).wait(120)
        ccd.exposure_number.put(0)
        values_after(ccd)
    ccd.cam.acquire_time.set(0.2).wait(120)
    ccd.exposure_number.put(0)
    fault(name, 1)
    assert "equals the one before bit by bit" in refusal(ccd, FrameRefused)
    assert values_after(ccd)["ccd_exposure_s"] == 0.2


def test_a_dropped_frame_is_missed(ccd: Any, fault: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/dropped").wait(120)
    fault("ccd_dropped_frame", 1)
    line = refusal(ccd, FrameRefused)
    assert re.search(
        r"NumCaptured_RBV = 0 .* expected 1; SIM:CCD:HDF1:DroppedArrays_RBV = \d", line
    )
    assert values_after(ccd)["ccd_frame_number"] == 0


@pytest.mark.parametrize("frames_before", [0, 1])
@pytest.mark.parametrize(
    ("name", "reason"),
    [("storage_away", "Input/output error"), ("storage_full", "No space left on device")],
)
def test_storage_that_fails_is_told_and_used_again(
    ccd: Any, fault: Any, tmp_path: Path, name: str, reason: str, frames_before: int
) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/{name}{frames_before}").wait(120)
    for _ in range(frames_before):
        values_after(ccd)
    fault(name, 1)
    line = refusal(ccd, FrameRefused)
    assert f"frame {frames_before} of {name}{frames_before}.h5 was not written" in line
    assert re.search(f"SIM:CCD:HDF1:WriteMessage = '.*{reason}'", line)
    fault(name, 0)
    assert values_after(ccd)["ccd_frame_number"] == frames_before
    ccd.frame_file.set(None).wait(120)
    folder = ccd.frames_directory / tmp_path.name
    with h5py.File(folder / f"{name}{frames_before}.h5") as file:
        assert len(file[DATASET]) == frames_before + 1


def test_a_file_that_keeps_its_temporary_name_is_told(ccd: Any, fault: Any, tmp_path: Path) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/unfinished").wait(120)
    values_after(ccd)
    fault("storage_away", 1)
    with pytest.raises(FileNotFoundError, match=r"unfinished.h5 did not .* Input/output error"):
        ccd.frame_file.set(None).wait(120)
    fault("storage_away", 0)
    ccd.frame_file.set(f"{tmp_path.name}/unfinished").wait(120)
    assert values_after(ccd)["ccd_frame_number"] == 0
    folder = ccd.frames_directory / tmp_path.name
    assert sorted(os.listdir(folder)) == ["unfinished.h5.tmp", "unfinished_2.h5.tmp"]
    ccd.frame_file.set(None).wait(120)
    (folder / "unfinished.h5.tmp").unlink()  # other tests look for files that were left open


def test_a_frame_that_is_damaged_on_the_disk_has_another_checksum(
    ccd: Any, fault: Any, tmp_path: Path
) -> None:
    ccd.frame_file.set(f"{tmp_path.name}/damaged").wait(120)
    fault("file_corrupted", 1)
    crcs = [values_after(ccd)["ccd_frame_crc32"] for _ in range(2)]
    ccd.frame_file.set(None).wait(120)
    with h5py.File(ccd.frames_directory / tmp_path.name / "damaged.h5") as file:
        on_disk = [zlib.crc32(frame_vu.tobytes()) for frame_vu in file[DATASET]]
    assert [crc == read for crc, read in zip(crcs, on_disk, strict=True)] == [False, True]


def test_what_a_server_forgot_is_written_again_and_another_file_begun(
    ccd: Any, tmp_path: Path
) -> None:
    """As after a restart of the server: no capture, and the settings are its own."""
    ccd.frame_file.set(f"{tmp_path.name}/forgotten").wait(120)
    values_after(ccd)
    before = ccd.hdf1.num_captured.get()
    for signal, value in {
        ccd.hdf1.capture: 0,
        ccd.hdf1.temp_suffix: "",
        ccd.hdf1.file_template: "%s%s_%6.6d.h5",
        ccd.hdf1.lazy_open: 0,
        ccd.cam.image_mode: 1,
    }.items():
        signal.put(value, use_complete=True, wait=True, timeout=120)
    wanted, ccd.cam.acquire_time.wanted = ccd.cam.acquire_time.wanted, None
    ccd.cam.acquire_time.put(7.0, use_complete=True, wait=True, timeout=120)
    ccd.cam.acquire_time.wanted = wanted
    ccd.trigger().wait(120)
    names = [name for name, _ in ccd.collect_asset_docs()]
    assert names == ["stream_resource", "stream_datum"]
    assert before == 1
    assert values(ccd)["ccd_frame_number"] == 0
    assert values(ccd)["ccd_exposure_s"] == 0.2
    folder = ccd.frames_directory / tmp_path.name
    assert sorted(os.listdir(folder)) == ["forgotten.h5", "forgotten_2.h5.tmp"]
