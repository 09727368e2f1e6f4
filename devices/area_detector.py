"""An areaDetector camera and its HDF5 plug-in: how they are set, captured from, started and stopped."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ophyd import Component, Device
from ophyd.areadetector import ADComponent, EpicsSignalWithRBV
from ophyd.areadetector.cam import CamBase
from ophyd.areadetector.plugins import HDF5Plugin_V34

from mistral_txm.devices.configuration import CcdSettings
from mistral_txm.devices.frame_store import TEMPORARY_SUFFIX
from mistral_txm.devices.motion import Interrupted, Motion, last_seen


class CameraNotReady(RuntimeError):
    """Nothing was exposed, and to try again does not help: one line says what has to be changed."""

    needs_a_person = True


class Remembered(EpicsSignalWithRBV):  # type: ignore[misc]  # ophyd is untyped
    """A setting that plans write, known also after the server forgot it."""

    wanted: Any = None

    def put(self, value: Any, **options: Any) -> None:
        """Write, and remember."""
        super().put(value, **options)
        self.wanted = value


class Camera(CamBase):  # type: ignore[misc]  # ophyd is untyped
    """ADBase, with those settings in the configuration of a run that describe its frames."""

    lazy_wait_for_connection = False
    _default_configuration_attrs = ("gain", "manufacturer", "model", "temperature")
    acquire = ADComponent(EpicsSignalWithRBV, "Acquire", auto_monitor=True)
    acquire_time = ADComponent(Remembered, "AcquireTime")
    array_counter = ADComponent(EpicsSignalWithRBV, "ArrayCounter")

    def stage(self) -> list[object]:
        """Stage nothing: the CCD sets what it needs."""
        return [self]


class FrameWriter(HDF5Plugin_V34):  # type: ignore[misc]  # ophyd is untyped
    """NDFileHDF5 in stream mode: file after file, each under a temporary name until closed."""

    lazy_wait_for_connection = False

    def stage(self) -> list[object]:
        """Stage nothing: the CCD sets what it needs; files are opened lazily, so no priming."""
        return [self]


class AreaDetector(Device):  # type: ignore[misc]  # ophyd is untyped
    """The detector's server, which exposes and writes: whole frames of 16 bit, one at a time, into HDF5 files.

    It is refused to expose where the server is set otherwise. Which exposures are taken, and whether their
    frames are on disk, is `ccd.Ccd`'s.

    Of the server, areaDetector's documented behaviour is used: the put-callback of `Acquire`
    completes when the plug-in, which blocks, has written the frame; `NumCaptured_RBV` counts frames
    that were written, `WriteStatus` and `WriteMessage` tell of others; in SWMR mode a frame is
    flushed when it is written, and the file has `TempSuffix` until `Capture` is put to 0. The driver counts a
    frame in `ArrayCounter`, which may be written, and takes the frame's unique id from it.
    """

    cam = Component(Camera, "cam1:", kind="config")
    hdf1 = Component(FrameWriter, "HDF1:", kind="omitted")

    def __init__(
        self, prefix: str, *, name: str, settings: CcdSettings, control_timeout_s: float
    ) -> None:
        super().__init__(prefix, name=name)
        self.settings = settings
        self.control_timeout_s = control_timeout_s
        for sizes in (self.cam.size, self.cam.max_size):
            sizes.lazy_wait_for_connection = False
        staged = {
            self.cam.image_mode: self.cam.ImageMode.SINGLE,
            self.cam.num_exposures: 1,
            self.cam.array_callbacks: 1,
            self.hdf1.enable: "Enable",
            self.hdf1.blocking_callbacks: "Yes",
            self.hdf1.file_write_mode: self.hdf1.FileWriteMode.STREAM,
            self.hdf1.file_template: "%s%s",
            self.hdf1.auto_increment: 0,
            self.hdf1.num_capture: 0,
            self.hdf1.lazy_open: "Yes",
            self.hdf1.temp_suffix: TEMPORARY_SUFFIX,
            self.hdf1.swmr_mode: "On",
            self.hdf1.num_frames_chunks: 1,
            self.hdf1.num_frames_flush: 1,
        }
        self.stage_sigs.update(staged)
        for signal in (*staged, self.cam.acquire_time):
            signal.put_complete = True
        for signal in self._monitored:
            signal.subscribe(lambda **_: None)
        self._counter: int | None = None
        self._given_up = False

    @property
    def used_signals(self) -> tuple[Any, ...]:
        """The signals that an exposure needs: they have to connect."""
        cam, hdf1 = self.cam, self.hdf1
        return (
            *self.stage_sigs,
            *(getattr(cam, attribute) for attribute in cam.configuration_attrs),
            *self._monitored,
            cam.acquire,
            cam.acquire_time,
            cam.array_counter,
            cam.temperature_actual,
            hdf1.dropped_arrays,
            hdf1.file_name,
            hdf1.file_path,
            hdf1.file_path_exists,
            hdf1.num_captured,
            hdf1.unique_id,
            hdf1.write_message,
            hdf1.write_status,
        )

    @property
    def frame_bytes(self) -> int:
        """How many bytes a frame takes."""
        ny, nx = self._sensor_shape()
        return 2 * ny * nx

    @property
    def _monitored(self) -> tuple[Any, ...]:
        """What is looked at before every exposure, and changes rarely."""
        cam = self.cam
        return (
            cam.data_type,
            cam.min_x,
            cam.min_y,
            cam.size.size_x,
            cam.size.size_y,
            cam.bin_x,
            cam.bin_y,
            cam.temperature,
            cam.max_size.max_size_x,
            cam.max_size.max_size_y,
            self.hdf1.capture,
        )

    def stage(self) -> list[object]:
        """Stop whatever the camera does, and set it up for single exposures into files."""
        self._write(self.cam.acquire, 0)
        self._counter = None
        staged: list[object] = super().stage()
        return staged

    def _point_to(self, folder: Path) -> None:
        hdf1 = self.hdf1
        folder.mkdir(parents=True, exist_ok=True)
        self._write(hdf1.file_path, f"{folder}/")
        if not hdf1.file_path_exists.get():
            raise FileNotFoundError(
                f"{self.name}: the detector's server does not see the folder {folder} "
                f"({hdf1.file_path_exists.pvname} is 0); check that it is shared"
            )

    def _capture_to(self, path: Path) -> None:
        """Let the server capture frames into a file."""
        hdf1 = self.hdf1
        self._point_to(path.parent)
        self._write(hdf1.file_name, path.name)
        hdf1.capture.put(1)  # completes when the capture ends, so its readback is watched
        if not becomes(lambda: hdf1.capture.get() == 1, self.control_timeout_s):
            raise TimeoutError(
                f"{self.name}: no capture began within {self.control_timeout_s:g} s: "
                f"{hdf1.write_message.pvname} = {hdf1.write_message.get()!r}; check "
                f"{hdf1.capture.setpoint_pvname}"
            )
        self._counter = None

    def _set_up(self) -> None:
        """Write the settings again."""
        for signal, value in self.stage_sigs.items():
            self._write(signal, value)
        exposure_s = self.cam.acquire_time
        if exposure_s.wanted is not None and exposure_s.get() != exposure_s.wanted:
            self._write(exposure_s, exposure_s.wanted)

    def _check_format(self) -> None:
        """Refuse to expose where the frames would not be whole, not binned and of 16 bit."""
        # What monitors tell costs nothing, but may be a moment old: the server is asked before it is refused.
        if self._misset(use_monitor=True) and (wrong := self._misset(use_monitor=False)):
            raise CameraNotReady(f"{self.name}: {'; '.join(wrong)}; set the camera back")

    def _misset(self, *, use_monitor: bool) -> list[str]:
        """Say which settings of the camera are not those of whole frames, not binned and of 16 bit."""
        cam = self.cam
        ny, nx = self._sensor_shape()
        expected = {
            cam.min_x: 0,
            cam.min_y: 0,
            cam.size.size_x: nx,
            cam.size.size_y: ny,
            cam.bin_x: 1,
            cam.bin_y: 1,
        }
        found = {signal: int(signal.get(use_monitor=use_monitor)) for signal in expected}
        wrong = [
            f"{signal.pvname} = {found[signal]}, expected {number}"
            for signal, number in expected.items()
            if found[signal] != number
        ]
        data_type = cam.data_type.get(as_string=True, use_monitor=use_monitor)
        if data_type != "UInt16":
            wrong.append(f"{cam.data_type.pvname} = {data_type}, expected UInt16")
        return wrong

    def _check_temperature(self) -> None:
        cam, tolerance_c = self.cam, self.settings.temperature_tolerance_c
        wanted_c = float(cam.temperature.get(use_monitor=True))
        actual_c = float(cam.temperature_actual.get())
        if not abs(actual_c - wanted_c) <= tolerance_c:
            raise CameraNotReady(
                f"{self.name}: {cam.temperature_actual.pvname} = {actual_c:.1f} C, expected "
                f"{wanted_c:.1f} C within {tolerance_c:g} C; check the camera's cooler, or wait"
            )

    def _take(self, motion: Motion, number: int, captured: int) -> float:
        """Take the exposure of a number into the file that has captured so many; returns the exposure time, s."""
        exposure_s = float(self.cam.acquire_time.get())
        limit_s = exposure_s + self.settings.timeout_s
        ended = threading.Event()

        def end(**_: Any) -> None:
            ended.set()
            motion.notify()

        self._count_from(number)
        with motion.uninterrupted():
            if self._given_up:
                self._write(self.hdf1.enable, "Enable")
                self._given_up = False
            self.cam.acquire.put(1, use_complete=True, callback=end)
        try:
            if not motion.wait_until(ended.is_set, limit_s):
                seen = last_seen(self.cam.acquire)
                raise TimeoutError(
                    f"{self.name}: no frame within {limit_s:g} s of an exposure of "
                    f"{exposure_s:g} s; {seen}; {self._stop(ended)}"
                )
        except Interrupted:
            if not ended.wait(self.control_timeout_s):
                raise TimeoutError(
                    f"{self.name}: did not stop within {self.control_timeout_s:g} s; check the camera "
                    f"{self.prefix}"
                ) from None
            if int(self.hdf1.num_captured.get()) == captured:
                raise
        return exposure_s

    def _count_from(self, number: int) -> None:
        """Let the camera count from the number of this exposure; within a file it does so by itself."""
        counted, self._counter = self._counter, None  # unknown until there is a frame
        if counted != number and int(self.cam.array_counter.get()) != number:
            self._write(self.cam.array_counter, number)

    def _halt(self) -> None:
        """Stop an exposure without a frame: the file plug-in stops listening before the camera stops.

        So a frame is either in the file already, and complete, or will never be.
        """
        self._given_up = True
        self._write(self.hdf1.enable, "Disable")
        self.cam.acquire.put(0)

    def _stop(self, ended: threading.Event) -> str:
        """Stop an exposure that does not end by itself, without a frame; returns what came of it."""
        try:
            self._halt()
            stopped = ended.wait(self.control_timeout_s)
        except Exception:  # the exposure has failed anyway, and that is what has to be told
            stopped = False
        if stopped:
            return "the camera was stopped: take the exposure again"
        return f"the camera does not stop either: check {self.cam.acquire.setpoint_pvname}"

    def _sensor_shape(self) -> tuple[int, int]:
        size = self.cam.max_size
        nx, ny = (each.get(use_monitor=True) for each in (size.max_size_x, size.max_size_y))
        return int(ny), int(nx)

    def _write(self, signal: Any, value: object) -> None:
        """Write and wait until the server has taken it; paths go as their bytes, beyond ASCII too."""
        if isinstance(value, str) and not value.isascii():
            value = [*os.fsencode(value), 0]
        done = threading.Event()
        signal.put(value, use_complete=True, callback=lambda **_: done.set())
        if not done.wait(self.control_timeout_s):
            raise TimeoutError(
                f"{self.name}: {signal.setpoint_pvname} did not take {value!r} within "
                f"{self.control_timeout_s:g} s; check the detector's server"
            )


def becomes(reached: Callable[[], bool], timeout_s: float) -> bool:
    """Ask until something is true; counters may follow the end of an exposure by milliseconds."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True
