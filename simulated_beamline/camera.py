"""The ADBase camera: acquisition."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import numpy as np
from caproto import ChannelData

from mistral_txm.simulated_beamline.area_detector import (
    CAMERA_PORT,
    Exposer,
    Frame,
    add_constants,
)
from mistral_txm.simulated_beamline.array_records import ArrayRecords
from mistral_txm.simulated_beamline.channels import (
    Database,
    add_fixed,
    double,
    integer,
    long_string,
    menu,
    post,
    with_readback,
)
from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.cooler import Cooler
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.file_plugin import HDF5FilePlugin
from mistral_txm.simulated_beamline.readout import Counts, Readout
from mistral_txm.simulated_beamline.region import Region
from mistral_txm.simulated_beamline.settings import Camera as CameraSettings

DETECTOR_STATES = (
    "Idle",
    "Acquire",
    "Readout",
    "Correct",
    "Saving",
    "Aborting",
    "Error",
    "Waiting",
    "Initializing",
    "Disconnected",
    "Aborted",
)

TICK_S = 0.2
"""How often `TimeRemaining_RBV` counts down."""


class _Aborted(Exception):
    """Somebody put `Acquire` to 0."""


class _Delivered(NamedTuple):
    counts_vu: Counts
    unique_id: int


class Camera:
    """The camera at `prefix`: takes frames from `exposer` and hands them to `file_plugin`.

    An exposure takes `AcquireTime` and then the readout time of the clock, and as long times
    `time_scale` on the wall. With `NumExposures`, the counts of that many exposures are added to one
    image. `AcquirePeriod` counts from the begin of one image to that of the next. The chip is cold in the
    beginning.

    As in areaDetector's drivers, `ArrayCounter` counts an image before its unique id is taken from it. An
    image is numbered by the counter before: its unique id less one. What a client writes there is therefore
    the number of the next image.
    """

    def __init__(
        self,
        database: Database,
        prefix: str,
        shape_vu: tuple[int, int],
        exposer: Exposer,
        file_plugin: HDF5FilePlugin,
        worker: Executor,
        time_scale: float,
        settings: CameraSettings,
        clock: Clock,
        faults: Faults,
    ) -> None:
        temperature_c = settings.temperature_c
        self._exposer = exposer
        self._file_plugin = file_plugin
        self._worker = worker
        self._time_scale = time_scale
        self._readout_time_s = settings.readout_time_s
        self._clock = clock
        self._faults = faults
        self._room_c = settings.room_c
        self._cooler = Cooler(temperature_c, settings.cooling_time_s, time_scale)
        self._pixels = math.prod(shape_vu)
        self._abort = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._last: _Delivered | None = None

        def pair(name: str, make: Callable[..., ChannelData], *args: object) -> ChannelData:
            return with_readback(database, prefix + name, make, *args)

        self._arrays = ArrayRecords(database, prefix, CAMERA_PORT, shape_vu)
        self._readout = Readout(database, prefix, shape_vu, self._arrays)
        self._acquire = pair("Acquire", menu, ("Done", "Acquire"))
        self._acquire.on_put = self._acquire_put
        self._acquire_readback = menu(("Done", "Acquiring"))
        self._busy = menu(("Done", "Acquiring"))
        self._exposure_s = self._duration(database, f"{prefix}AcquireTime", 1.0)
        self._period_s = self._duration(database, f"{prefix}AcquirePeriod", 0.0)
        self._image_mode = pair("ImageMode", menu, ("Single", "Multiple", "Continuous"))
        self._number_of_images = pair("NumImages", integer, 1)
        self._number_of_exposures = pair("NumExposures", integer, 1)
        self._temperature = pair("Temperature", double, temperature_c)
        self._temperature_actual = double(temperature_c, units="C")
        self._temperature_actual.on_read = self._show_temperature
        self._images_counter = integer()
        self._exposures_counter = integer()
        self._queued_arrays = integer()
        self._state = menu(DETECTOR_STATES)
        self._status_message = long_string("Idle")
        self._time_remaining_s = double(units="s")
        add_constants(
            database,
            prefix,
            {
                "Acquire_RBV": self._acquire_readback,
                "AcquireBusy": self._busy,
                "NumImagesCounter_RBV": self._images_counter,
                "NumExposuresCounter_RBV": self._exposures_counter,
                "NumQueuedArrays": self._queued_arrays,
                "DetectorState_RBV": self._state,
                "StatusMessage_RBV": self._status_message,
                "StringFromServer_RBV": long_string(),
                "StringToServer_RBV": long_string(),
                "TimeRemaining_RBV": self._time_remaining_s,
                "TemperatureActual": self._temperature_actual,
                "ShutterStatus_RBV": menu(("Closed", "Open"), 1),
                "ShutterStatusEPICS_RBV": menu(("Closed", "Open"), 1),
            },
        )
        fixed: dict[str, ChannelData] = {
            "Gain": double(1.0),
            "TriggerMode": menu(("Internal", "External")),
            "FrameType": menu(("Normal", "Background", "FlatField", "DblCorrelation")),
            "ShutterMode": menu(("None", "EPICS PV", "Detector output")),
            "ShutterControl": menu(("Close", "Open"), 1),
        }
        for name, setpoint in fixed.items():
            add_fixed(database, prefix + name, setpoint)
        pair("ShutterOpenDelay", double)
        pair("ShutterCloseDelay", double)
        for name in ("ShutterCloseEPICS", "ShutterControlEPICS", "ShutterOpenEPICS"):
            database[prefix + name] = integer()
        database[f"{prefix}ShutterFanout"] = integer()
        database[f"{prefix}ReadStatus"] = menu(("Done", "Read"))

    @staticmethod
    def _duration(database: Database, name: str, initial_s: float) -> ChannelData:
        """Add a time and its readback; what is no time springs back."""
        setpoint = with_readback(database, name, partial(double, units="s"), initial_s)
        readback = database[f"{name}_RBV"]

        async def take(value: float) -> None:
            is_time = math.isfinite(value) and value >= 0
            await post(readback if is_time else setpoint, value if is_time else readback.value)

        setpoint.on_put = take
        return setpoint

    @property
    def temperature_c(self) -> float:
        """What the chip has now."""
        cooling = not self._faults.is_on("cooler_off")
        target_c = float(self._temperature.value) if cooling else self._room_c
        return self._cooler.follow(target_c, time.monotonic())

    async def _show_temperature(self) -> None:
        await post(self._temperature_actual, round(self.temperature_c, 2))

    async def _acquire_put(self, value: str) -> None:
        """Begin or stop; the put-callback completes when it is over, as that of a busy record."""
        if value != "Acquire":
            self._abort.set()
            return
        going_on = self._acquire_readback.value == "Acquiring" and not self._abort.is_set()
        await self._idle.wait()
        if going_on:
            return
        self._idle.clear()
        self._abort.clear()
        try:
            await self._acquire_images()
        finally:
            self._idle.set()

    async def _acquire_images(self) -> None:
        await post(self._acquire, 1)
        await post(self._acquire_readback, 1)
        await post(self._busy, 1)
        ended = "Error"
        try:
            await self._run()
            ended = "Idle"
        except _Aborted:
            ended = "Idle" if self._image_mode.value == "Continuous" else "Aborted"
        finally:
            await post(self._time_remaining_s, 0.0)
            await self._show(ended, "Acquisition aborted" if ended == "Aborted" else ended)
            await post(self._acquire, 0)
            await post(self._acquire_readback, 0)
            if self._arrays.wait_for_plugins.value == "Yes":
                await self._file_plugin.wait_until_idle()
            await post(self._busy, 0)

    async def _run(self) -> None:
        """Take the images of one acquisition."""
        mode = str(self._image_mode.value)
        wanted = {"Single": 1, "Multiple": int(self._number_of_images.value), "Continuous": None}
        planned = wanted[mode]
        await post(self._images_counter, 0)
        taken, began_s = 0, self._clock.time_s
        while planned is None or taken < planned:
            if taken:
                await self._wait_for_period(began_s)
            began_s = self._clock.time_s
            counts_vu = await self._image()
            taken += 1
            await self._deliver(counts_vu)
            await post(self._images_counter, taken)

    async def _image(self) -> Counts:
        """Take the exposures of one image, and add them up."""
        exposures = max(int(self._number_of_exposures.value), 1)
        first = exposures * int(self._arrays.counter_readback.value)
        region = self._readout.region
        await post(self._exposures_counter, 0)
        counts_vu: Counts = np.empty(0, np.uint16)
        for exposure in range(exposures):
            frame_vu = await self._expose(first + exposure, region)
            if exposures == 1:
                counts_vu = frame_vu
            elif exposure == 0:
                counts_vu = frame_vu.astype(np.uint64)
            else:
                counts_vu = counts_vu + frame_vu
            await post(self._exposures_counter, exposure + 1)
        return counts_vu

    async def _expose(self, number: int, region: Region) -> Frame:
        exposure_s = float(self._exposure_s.value)
        loop = asyncio.get_running_loop()
        await self._show("Acquire", "Acquiring")
        await self._show_temperature()
        render = await self._exposer.begin(exposure_s, number, region)
        rendering = [loop.run_in_executor(self._worker, render)]
        try:
            with self._clock.during(exposure_s):
                if await self._faults.spend("ccd_hang"):
                    await self._abort.wait()
                await self._wait(exposure_s)
        finally:
            changed = await self._exposer.end()
            if changed is not None and not self._abort.is_set():
                rendering.append(loop.run_in_executor(self._worker, changed))
            frames = await asyncio.gather(*rendering)
        await self._show("Readout", "Reading out")
        # The amplifier takes one bin after the other.
        readout_s = self._readout_time_s * math.prod(region.shape_vu) / self._pixels
        with self._clock.during(readout_s):
            await self._wait(readout_s)
        return frames[-1]

    async def _deliver(self, counts_vu: Counts) -> None:
        """Count an image, and hand it to the plug-in."""
        await self._arrays.count()
        taken = _Delivered(counts_vu, int(self._arrays.counter_readback.value))
        delivered = await self._as_faulty(taken)
        self._last = delivered
        array_vu = self._readout.deliver(delivered.counts_vu)
        await self._arrays.describe(array_vu.shape, array_vu.dtype)
        await self._arrays.stamp(delivered.unique_id)
        if self._arrays.callbacks.value != "Enable":
            return
        await self._show("Saving", "Saving")
        written = await self._file_plugin.receive(array_vu, delivered.unique_id)
        await post(self._queued_arrays, self._file_plugin.pending)
        if written is not None and delivered is taken:
            await self._exposer.captured(*written)

    async def _as_faulty(self, taken: _Delivered) -> _Delivered:
        """Return the image before instead, where a fault says so."""
        if self._last is None:
            return taken
        if await self._faults.spend("ccd_repeated_id"):
            return self._last
        if await self._faults.spend("ccd_repeated_frame"):
            return _Delivered(self._last.counts_vu, taken.unique_id)
        return taken

    async def _wait_for_period(self, began_s: float) -> None:
        rest_s = began_s + float(self._period_s.value) - self._clock.time_s
        if rest_s > 0:
            await self._show("Waiting", "Waiting for the acquire period")
            with self._clock.during(rest_s):
                await self._wait(rest_s)
        await asyncio.sleep(0)

    async def _wait(self, duration_s: float) -> None:
        """Let time pass on the scaled wall.

        Raises
        ------
        _Aborted
            If somebody put Acquire to 0 before or meanwhile.
        """
        ends_s = time.monotonic() + duration_s * self._time_scale
        while (left_s := ends_s - time.monotonic()) > 0 and not self._abort.is_set():
            await post(self._time_remaining_s, left_s / self._time_scale)
            try:
                await asyncio.wait_for(self._abort.wait(), min(left_s, TICK_S))
            except TimeoutError:
                continue
        await post(self._time_remaining_s, 0.0)
        if self._abort.is_set():
            raise _Aborted

    async def _show(self, state: str, message: str) -> None:
        await post(self._state, DETECTOR_STATES.index(state))
        await post(self._status_message, message)
