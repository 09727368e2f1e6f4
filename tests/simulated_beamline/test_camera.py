"""The simulated camera: acquisition, time, temperature, and what may go wrong with it."""

import asyncio
import math

import h5py
import pytest

from mistral_txm.simulated_beamline.cooler import Cooler
from mistral_txm.simulated_beamline.frame_file import DATASET, UNIQUE_ID_DATASET
from mistral_txm.simulated_beamline.region import Region


async def stream_into(bench, folder):
    await bench.put(H_FilePath=str(folder), H_FileName="f", H_FileTemplate="%s%s.h5")
    await bench.put(H_LazyOpen=1, H_NumCapture=0)
    capture = asyncio.create_task(bench.put(H_Capture=1))
    while bench.get("H_Capture_RBV") != "Capturing":
        await asyncio.sleep(0)

    async def close():
        await bench.put(H_Capture=0)
        await capture
        with h5py.File(folder / "f.h5") as file:
            return file[DATASET][()], list(file[UNIQUE_ID_DATASET])

    return close


def test_image_modes_take_as_many_images_as_they_say(with_camera):
    async def case(bench):
        await bench.put(C_NumImages=3, C_Acquire=1)
        assert bench.get("C_NumImagesCounter_RBV") == 1
        await bench.put(C_ImageMode="Multiple", C_Acquire=1)
        assert bench.get("C_NumImagesCounter_RBV") == 3
        assert bench.get("C_ArrayCounter_RBV") == bench.get("C_UniqueId_RBV") == 4
        await bench.put(C_ImageMode="Continuous")
        running = asyncio.create_task(bench.put(C_Acquire=1))
        while bench.get("C_NumImagesCounter_RBV") < 5:
            await asyncio.sleep(0)
        await bench.put(C_Acquire=0)
        await running
        assert bench.get("C_DetectorState_RBV") == "Idle"
        assert bench.get("C_Acquire_RBV") == bench.get("C_AcquireBusy") == "Done"

    with_camera(case)


def test_the_states_are_those_of_an_exposure(with_camera):
    async def case(bench):
        states, busy = bench.record("C_DetectorState_RBV"), bench.record("C_Acquire_RBV")
        await bench.put(C_Acquire=1)
        assert states == ["Acquire", "Readout", "Saving", "Idle"]
        assert busy == ["Acquiring", "Done"]
        assert bench.get("C_StatusMessage_RBV") == "Idle"

    with_camera(case)


def test_exposures_readout_and_period_pass_on_the_clock_at_any_scale(with_camera):
    async def case(bench):
        await bench.put(C_AcquireTime=8.0, C_Acquire=1)
        assert bench.clock.time_s == 8.5
        await bench.put(C_ImageMode="Multiple", C_NumImages=3, C_Acquire=1)
        assert bench.clock.time_s == 8.5 * 4
        await bench.put(C_AcquirePeriod=10.0, C_Acquire=1)
        assert bench.clock.time_s == 8.5 * 4 + 2 * 10 + 8.5  # nothing waits after the last image

    with_camera(case)


def test_an_exposure_takes_its_scaled_time_on_the_wall(with_camera):
    async def case(bench):
        left_s = bench.record("C_TimeRemaining_RBV")
        began_s = asyncio.get_running_loop().time()
        await bench.put(C_AcquireTime=20.0, C_Acquire=1)
        assert asyncio.get_running_loop().time() - began_s >= (20 + 5) * 0.01
        assert 19 < left_s[0] <= 20
        assert left_s[-1] == 0

    with_camera(case, time_scale=0.01, readout_time_s=5.0)


def test_a_stopped_exposure_leaves_no_frame_and_the_next_one_begins(with_camera):
    async def case(bench):
        await bench.put(C_AcquireTime=1000.0)
        exposing = asyncio.create_task(bench.put(C_Acquire=1))
        while bench.get("C_DetectorState_RBV") != "Acquire":
            await asyncio.sleep(0)
        await bench.put(C_Acquire=0)
        again = asyncio.create_task(bench.put(C_Acquire=1))
        await exposing
        assert bench.get("C_ArrayCounter_RBV") == 0
        await asyncio.sleep(0.01)
        assert not again.done()
        await bench.put(C_Acquire=0)
        await again
        assert len(bench.exposer.begun) == 2
        assert bench.get("C_DetectorState_RBV") == "Aborted"

    with_camera(case, time_scale=1.0)


def test_a_second_start_waits_for_the_exposure_that_is_going_on(with_camera):
    async def case(bench):
        await asyncio.gather(bench.put(C_Acquire=1), bench.put(C_Acquire=1))
        assert len(bench.exposer.begun) == 1

    with_camera(case)


def test_the_exposer_is_told_number_and_region_and_where_its_frame_went(with_camera, tmp_path):
    async def case(bench):
        await bench.put(C_AcquireTime=2.0, C_Acquire=1)
        close = await stream_into(bench, tmp_path)
        await bench.put(C_MinX=2, C_SizeX=4, C_BinX=2, C_Acquire=1)
        await bench.put(C_Acquire=1)
        region = Region(2, 0, 4, 6, 2, 1)
        assert bench.exposer.begun[1:] == [(2.0, 1, region), (2.0, 2, region)]
        assert bench.exposer.begun[0] == (2.0, 0, Region(0, 0, 8, 6))
        frames_tvu, unique_ids = await close()
        assert frames_tvu.shape == (2, 6, 2)
        assert unique_ids == [2, 3]
        assert bench.exposer.told == [(f"{tmp_path}/f.h5", 0), (f"{tmp_path}/f.h5", 1)]

    with_camera(case)


def test_the_counter_that_a_client_writes_numbers_the_next_image(with_camera, tmp_path):
    """As a driver does: it counts from what was written, then takes the unique id from it."""

    async def case(bench):
        close = await stream_into(bench, tmp_path)
        await bench.put(C_Acquire=1)
        await bench.put(C_ArrayCounter=17)
        assert bench.get("C_ArrayCounter_RBV") == 17
        await bench.put(C_Acquire=1)
        await bench.put(C_Acquire=1)
        assert bench.get("C_ArrayCounter_RBV") == bench.get("C_ArrayCounter") == 19
        await bench.put(C_ArrayCounter=0, C_Acquire=1)
        assert [number for _, number, _ in bench.exposer.begun] == [0, 17, 18, 0]
        _, unique_ids = await close()
        assert unique_ids == [1, 18, 19, 1]

    with_camera(case)


def test_light_that_changes_during_an_exposure_is_rendered_again(with_camera, tmp_path):
    async def case(bench):
        close = await stream_into(bench, tmp_path)
        bench.exposer.changes = {1: 500}
        await bench.put(C_Acquire=1)
        await bench.put(C_Acquire=1)
        frames_tvu, _ = await close()
        assert list(frames_tvu[:, 0, 0]) == [500, 2]

    with_camera(case)


def test_exposures_of_one_image_are_added_each_with_noise_of_its_own(with_camera, tmp_path):
    async def case(bench):
        close = await stream_into(bench, tmp_path)
        await bench.put(C_NumExposures=3, C_Acquire=1)
        assert bench.get("C_NumExposuresCounter_RBV") == 3
        await bench.put(C_Acquire=1)
        frames_tvu, _ = await close()
        assert list(frames_tvu[:, 0, 0]) == [1 + 2 + 3, 4 + 5 + 6]
        assert [number for _, number, _ in bench.exposer.begun] == [0, 1, 2, 3, 4, 5]

    with_camera(case)


def test_a_hanging_exposure_ends_when_it_is_stopped(with_camera):
    async def case(bench):
        await bench.faults.turn("ccd_hang", 1)
        exposing = asyncio.create_task(bench.put(C_Acquire=1))
        await asyncio.sleep(0.01)
        assert not exposing.done()
        assert bench.get("C_DetectorState_RBV") == "Acquire"
        await bench.put(C_Acquire=0)
        await exposing
        assert bench.get("C_ArrayCounter_RBV") == 0
        await bench.put(C_Acquire=1)
        assert bench.get("C_ArrayCounter_RBV") == 1

    with_camera(case)


@pytest.mark.parametrize(
    ("fault", "numbers", "unique_ids"),
    [
        ("ccd_repeated_frame", [1, 1, 3], [1, 2, 3]),
        ("ccd_repeated_id", [1, 1, 3], [1, 1, 3]),
        ("ccd_dropped_frame", [1, 3], [1, 3]),
    ],
)
def test_frames_that_come_again_or_not_at_all(with_camera, tmp_path, fault, numbers, unique_ids):
    async def case(bench):
        close = await stream_into(bench, tmp_path)
        await bench.put(C_Acquire=1)
        await bench.faults.turn(fault, 1)
        await bench.put(C_Acquire=1)
        await bench.put(C_Acquire=1)
        frames_tvu, ids = await close()
        assert list(frames_tvu[:, 0, 0]) == numbers
        assert ids == unique_ids
        assert bench.get("H_DroppedArrays_RBV") == (fault == "ccd_dropped_frame")
        assert len(bench.exposer.told) == 2  # nobody knows the truth of a frame that is not its own

    with_camera(case)


def test_an_exposer_that_fails_leaves_the_camera_usable(with_camera):
    async def case(bench):
        async def failing(*_):
            return lambda: 1 / 0

        bench.exposer.begin, begin = failing, bench.exposer.begin
        with pytest.raises(ZeroDivisionError):
            await bench.put(C_Acquire=1)
        assert bench.get("C_DetectorState_RBV") == "Error"
        bench.exposer.begin = begin
        await bench.put(C_Acquire=1)
        assert bench.get("C_ArrayCounter_RBV") == 1

    with_camera(case)


def test_the_chip_is_as_cold_as_the_cooler_makes_it(with_camera):
    async def case(bench):
        async def actual_c():
            channel = bench.database["C:TemperatureActual"]
            await channel.read(channel.data_type)
            return channel.value

        assert await actual_c() == bench.camera.temperature_c == -50.0
        await bench.put(C_Temperature=-40.0)
        assert await actual_c() == bench.camera.temperature_c == -40.0
        await bench.faults.turn("cooler_off", 1)
        assert await actual_c() == bench.camera.temperature_c == 20.0

    with_camera(case)


def test_the_temperature_follows_exponentially_in_scaled_time():
    cooler = Cooler(-50.0, cooling_time_s=60.0, time_scale=0.1)
    assert cooler.follow(20.0, now_s=100.0) == -50.0
    steps_c = [cooler.follow(20.0, now_s=100.0 + step) for step in range(1, 7)]
    expected_c = [20 - 70 * math.exp(-step / (0.1 * 60.0)) for step in range(1, 7)]
    assert steps_c == pytest.approx(expected_c)


def test_what_is_no_time_springs_back(with_camera):
    async def case(bench):
        await bench.put(C_AcquireTime=3.0)
        for value in (-1.0, float("nan"), float("inf")):
            await bench.put(C_AcquireTime=value)
            assert bench.get("C_AcquireTime") == bench.get("C_AcquireTime_RBV") == 3.0

    with_camera(case)
