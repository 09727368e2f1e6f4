"""The simulated NDFileHDF5: modes, names, queue, and storage that fails."""

import asyncio
import os

import h5py
import numpy as np
import pytest

from mistral_txm.simulated_beamline.frame_file import DATASET, UNIQUE_ID_DATASET


def frame(number, shape_vu=(6, 8), dtype=np.uint16):
    return np.full(shape_vu, number, dtype)


def numbers_in(path, **options):
    with h5py.File(path, "r", **options) as file:
        return list(file[DATASET][:, 0, 0])


async def aim(bench, folder, **values):
    await bench.put(H_FilePath=str(folder), H_FileName="f", **values)


async def start(bench):
    """Begin a capture; returns what ends with it."""
    capture = asyncio.create_task(bench.put(H_Capture=1))
    for _ in range(1000):
        await asyncio.sleep(0.001)
        if bench.get("H_Capture_RBV") == "Capturing" or capture.done():
            return capture
    raise AssertionError("the capture did not begin")


async def feed(bench, *numbers):
    return [await bench.plugin.receive(frame(number), number) for number in numbers]


def test_single_writes_a_file_per_array(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_FileWriteMode="Single", H_FileNumber=5)
        assert await feed(bench, 1, 2) == [
            (f"{tmp_path}/f_000005.h5", 0),
            (f"{tmp_path}/f_000006.h5", 0),
        ]
        assert numbers_in(tmp_path / "f_000006.h5") == [2]
        assert bench.get("H_FileNumber_RBV") == 7
        await bench.put(H_AutoSave=0)
        assert await feed(bench, 3) == [None]
        assert not (tmp_path / "f_000007.h5").exists()
        await bench.put(H_WriteFile=1)
        assert numbers_in(tmp_path / "f_000007.h5") == [3]
        assert bench.get("H_WriteFile") == bench.get("H_WriteFile_RBV") == "Done"
        await bench.put(H_Capture=1)
        assert "Single does not capture" in bench.get("H_WriteMessage")

    with_camera(case)


def test_capture_keeps_arrays_in_memory_until_they_are_written(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_FileWriteMode="Capture", H_NumCapture=3, H_AutoSave=0)
        await bench.put(H_Capture=1)
        assert "no array has come yet" in bench.get("H_WriteMessage")
        await feed(bench, 1)
        capture = await start(bench)
        await feed(bench, 2, 3)
        assert bench.get("H_NumCaptured_RBV") == 2
        assert not list(tmp_path.iterdir())
        await feed(bench, 4, 5)
        await capture
        assert bench.get("H_Capture_RBV") == "Done"
        await bench.put(H_WriteFile=1)
        assert numbers_in(tmp_path / "f_000000.h5") == [2, 3, 4]
        assert bench.get("H_NumCaptured_RBV") == 0
        await bench.put(H_WriteFile=1)
        assert "no capture buffer" in bench.get("H_WriteMessage")

        await bench.put(H_AutoSave=1)
        capture = await start(bench)
        await feed(bench, 6, 7, 8)
        await capture
        assert numbers_in(tmp_path / "f_000001.h5") == [6, 7, 8]

        capture = await start(bench)
        await feed(bench, 9)
        await bench.put(H_FreeCapture=1, H_Capture=0)
        await capture
        assert bench.get("H_NumCaptured_RBV") == 0

    with_camera(case)


def test_a_stream_is_readable_after_every_array_and_named_when_it_ends(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_NumCapture=2, H_LazyOpen=1, H_TempSuffix=".tmp")
        capture = await start(bench)
        assert bench.get("H_FullFileName_RBV") == ""
        assert await feed(bench, 7) == [(f"{tmp_path}/f_000000.h5", 0)]
        assert bench.get("H_SWMRActive_RBV") == "Active"
        assert numbers_in(tmp_path / "f_000000.h5.tmp", swmr=True) == [7]
        await feed(bench, 9)
        await capture
        assert numbers_in(tmp_path / "f_000000.h5") == [7, 9]
        assert bench.get("H_SWMRActive_RBV") == "Off"
        assert await feed(bench, 11) == [None]

    with_camera(case)


def test_a_stream_without_lazy_open_needs_an_array_first(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path)
        await bench.put(H_Capture=1)
        assert bench.get("H_Capture_RBV") == "Done"
        assert "set LazyOpen" in bench.get("H_WriteMessage")
        await feed(bench, 1)
        capture = await start(bench)
        assert (tmp_path / "f_000000.h5").exists()
        await bench.put(H_Capture=0)
        await capture
        assert numbers_in(tmp_path / "f_000000.h5") == []

    with_camera(case)


def test_an_array_of_another_size_or_type_is_ignored_with_a_reason(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_LazyOpen=1)
        capture = await start(bench)
        await feed(bench, 1)
        for odd in (frame(2, (3, 8)), frame(2, dtype=np.uint8)):
            assert await bench.plugin.receive(odd, 2) is None
            assert bench.get("H_WriteStatus") == "Write error"
            assert "frame ignored: it is" in bench.get("H_WriteMessage")
            assert bench.get("H_ArraySizeY_RBV") == len(odd)
        await feed(bench, 3)
        assert bench.get("H_WriteStatus") == "Write OK"
        await bench.put(H_Capture=0)
        await capture
        assert numbers_in(tmp_path / "f_000000.h5") == [1, 3]

    with_camera(case)


def test_types_are_those_of_the_arrays(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_FileWriteMode="Single")
        types = {"UInt8": np.uint8, "UInt32": np.uint32, "Float32": np.float32, "Int64": np.int64}
        for number, (name, dtype) in enumerate(types.items()):
            await bench.put(C_DataType=name, C_Acquire=1)
            assert bench.get("H_DataType_RBV") == bench.get("C_DataType_RBV") == name
            assert bench.get("C_ArraySize_RBV") == 48 * np.dtype(dtype).itemsize
            with h5py.File(tmp_path / f"f_{number:06d}.h5") as file:
                assert file[DATASET].dtype == dtype
                np.testing.assert_array_equal(file[DATASET][0], frame(number + 1))

    with_camera(case)


def test_a_full_queue_drops_and_counts(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_LazyOpen=1, H_BlockingCallbacks=0, H_QueueSize=2)
        capture = await start(bench)
        await bench.faults.turn("storage_delay", 0.02)
        await feed(bench, 1)
        while bench.get("H_QueueUse"):
            await asyncio.sleep(0)
        await feed(bench, 2, 3, 4, 5)  # 1 is in work, 2 and 3 wait
        assert bench.get("H_DroppedArrays_RBV") == 2
        assert (bench.get("H_QueueUse"), bench.get("H_QueueFree")) == (2, 0)
        assert bench.plugin.pending == 3
        await bench.plugin.wait_until_idle()
        assert bench.plugin.pending == 0
        await bench.put(H_Capture=0, H_DroppedArrays=0)
        await capture
        assert bench.get("H_DroppedArrays_RBV") == 0
        assert numbers_in(tmp_path / "f_000000.h5") == [1, 2, 3]

    with_camera(case)


def test_the_camera_waits_for_the_queue_where_it_is_told_to(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_LazyOpen=1, H_BlockingCallbacks=0)
        capture = await start(bench)
        await bench.faults.turn("storage_delay", 0.02)
        await bench.put(C_Acquire=1)
        assert bench.get("H_NumCaptured_RBV") == 0
        await bench.put(C_WaitForPlugins=1, C_Acquire=1)
        assert bench.get("H_NumCaptured_RBV") == 2
        await bench.put(H_Capture=0)
        await capture

    with_camera(case)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("storage_away", "Input/output error"), ("storage_full", "No space left on device")],
)
def test_storage_that_fails_says_why_and_recovers(with_camera, tmp_path, fault, reason):
    async def case(bench):
        await aim(bench, tmp_path, H_LazyOpen=1, H_NumCapture=9)
        capture = await start(bench)
        await feed(bench, 1)
        await bench.faults.turn(fault, 1)
        assert await feed(bench, 2) == [None]
        assert bench.get("H_WriteStatus") == "Write error"
        assert bench.get("H_WriteMessage").endswith(reason)
        assert bench.get("H_NumCaptured_RBV") == 1
        await bench.faults.turn(fault, 0)
        await feed(bench, 3)
        assert bench.get("H_WriteMessage") == ""
        await bench.put(H_Capture=0)
        await capture
        with h5py.File(tmp_path / "f_000000.h5") as file:
            assert list(file[UNIQUE_ID_DATASET]) == [1, 3]

    with_camera(case)


def test_an_endless_stream_ends_where_its_first_array_cannot_be_written(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path / "nowhere", H_LazyOpen=1)
        assert bench.get("H_FilePathExists_RBV") == "No"
        capture = await start(bench)
        await feed(bench, 1)
        await capture
        assert bench.get("H_Capture_RBV") == "Done"
        assert "no such folder" in bench.get("H_WriteMessage")

    with_camera(case)


def test_a_file_that_cannot_be_closed_keeps_its_temporary_name(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_LazyOpen=1, H_TempSuffix=".tmp")
        capture = await start(bench)
        await feed(bench, 1)
        await bench.faults.turn("storage_away", 1)
        await bench.put(H_Capture=0)
        await capture
        assert "cannot close" in bench.get("H_WriteMessage")
        assert [path.name for path in tmp_path.iterdir()] == ["f_000000.h5.tmp"]

    with_camera(case)


def test_frames_are_damaged_on_the_disk_behind_the_servers_back(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_LazyOpen=1)
        capture = await start(bench)
        await feed(bench, 1)
        await bench.faults.turn("file_corrupted", 1)
        await feed(bench, 2, 3)
        with h5py.File(tmp_path / "f_000000.h5", swmr=True) as file:
            np.testing.assert_array_equal(file[DATASET][1], frame(2))
        await bench.put(H_Capture=0)
        await capture
        with h5py.File(tmp_path / "f_000000.h5") as file:
            changed = [int(np.sum(file[DATASET][i] != frame(i + 1))) for i in range(3)]
        assert changed == [0, 8, 0]  # 16 bytes of the second one

    with_camera(case)


def test_what_stands_in_the_way_is_never_overwritten(with_camera, tmp_path):
    async def case(bench):
        await aim(bench, tmp_path, H_FileWriteMode="Single", H_FileTemplate="%s%s.h5")
        await feed(bench, 1, 2)
        assert "exists already" in bench.get("H_WriteMessage")
        assert numbers_in(tmp_path / "f.h5") == [1]
        await bench.put(H_FileTemplate="%d", H_FileName="g")
        await feed(bench, 3)
        assert "expected %s%s" in bench.get("H_WriteMessage")

    with_camera(case)


def test_folders_are_made_as_far_as_createdirectory_allows(with_camera, tmp_path):
    async def case(bench):
        await bench.put(H_CreateDirectory=-1, H_FilePath=str(tmp_path / "a" / "b"))
        assert bench.get("H_FilePathExists_RBV") == "No"
        await bench.put(H_CreateDirectory=-2, H_FilePath=str(tmp_path / "a" / "b"))
        assert bench.get("H_FilePathExists_RBV") == "Yes"
        assert bench.get("H_FilePath_RBV") == f"{tmp_path}/a/b/"
        depth = len(tmp_path.parts)
        await bench.put(H_CreateDirectory=depth + 1, H_FilePath=str(tmp_path / "c"))
        assert not (tmp_path / "c").exists()
        await bench.put(H_CreateDirectory=depth, H_FilePath=str(tmp_path / "c"))
        assert os.listdir(tmp_path / "c") == []

    with_camera(case)
