"""The CCD: an areaDetector camera whose server writes frames, and proof that they are on disk."""

import itertools
import logging
import os
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ophyd import Component, Device, Signal
from ophyd.areadetector import ADComponent, EpicsSignalWithRBV
from ophyd.areadetector.cam import CamBase
from ophyd.areadetector.plugins import HDF5Plugin_V34
from ophyd.status import DeviceStatus

from mistral_txm.devices.configuration import CcdSettings
from mistral_txm.devices.frame_store import (
    TEMPORARY_SUFFIX,
    FrameNumbers,
    FrameRefused,
    OpenFile,
)
from mistral_txm.devices.motion import Interrupted, Motion, Setting, last_seen

logger = logging.getLogger(__name__)

MONITOR_TIMEOUT_S = 2.0
"""How much later than the end of an exposure its counters may arrive."""


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


class FrameFile(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to a name to open a file, to None to close it.

    The name is a path below the frames' folder, without ``.h5``. A name that is taken gets a
    number: frames are never overwritten.
    """

    _motion: Motion | None = None

    def set(self, name: str | None, **_: Any) -> Motion:
        """Open or close; the status fails with one line that says why the server could not."""
        ccd: Ccd = self.parent
        self._motion = Motion(
            self,
            lambda _motion: ccd.close() if name is None else ccd.open(name),
            after=self._motion,
        )
        return self._motion.start()


class Discard(Device):  # type: ignore[misc]  # ophyd is untyped
    """Set to a reason, in one line, to forget the frame that was taken last but not collected.

    The frame stays in its file, and no Event refers to it. Nothing happens where there is none.
    """

    def set(self, reason: str, **_: Any) -> DeviceStatus:
        """Forget the frame; the next trigger exposes again."""
        ccd: Ccd = self.parent
        ccd.discard_frame(reason)
        status = DeviceStatus(self)
        status.set_finished()
        return status


class Ccd(Device):  # type: ignore[misc]  # ophyd is untyped
    """One exposure per trigger into the open frame file, one frame per reading.

    The server exposes and writes; then this device reads the frame back from the file. So the
    checksum in an Event says that the frame was on disk before the Event was made.

    A frame that was taken but not collected (a pause came between) is not taken again: the next
    trigger hands it over. An exposure that is given up because of a pause leaves no frame.
    Therefore the frames of a file and the Events that refer to it match one to one, in order,
    apart from frames that were refused or discarded: those have no Event.

    Exposures are numbered: the camera counts from `exposure_number`, so that the unique id of the frame has
    to be the number after. A plan sets it before it triggers; left alone, it counts up by itself with each
    frame. An exposure that is taken again has the same number.

    After a failure, the next trigger writes the settings again, and goes on in another file (the
    name gets a number) where the server does not capture any more, as after its restart.

    Of the server, areaDetector's documented behaviour is used: the put-callback of `Acquire`
    completes when the plug-in, which blocks, has written the frame; `NumCaptured_RBV` counts frames
    that were written, `WriteStatus` and `WriteMessage` tell of others; in SWMR mode a frame is
    flushed when it is written, and the file has `TempSuffix` until `Capture` is put to 0. The driver counts a
    frame in `ArrayCounter`, which may be written, and takes the frame's unique id from it.
    """

    cam = Component(Camera, "cam1:", kind="config")
    hdf1 = Component(FrameWriter, "HDF1:", kind="omitted")
    frame_file = Component(FrameFile, "", kind="omitted")
    discard = Component(Discard, "", kind="omitted")
    exposure_number = Component(Setting, value=0, kind="omitted")
    frame_number = Component(Signal, value=-1, kind="normal")
    frame_crc32 = Component(Signal, value=0, kind="normal")
    exposure_s = Component(Signal, value=0.0, kind="normal")
    saturated_fraction = Component(Signal, value=0.0, kind="normal")
    bright_counts = Component(Signal, value=0, kind="normal")
    mean_counts = Component(Signal, value=0.0, kind="hinted")

    def __init__(
        self,
        prefix: str,
        *,
        name: str,
        settings: CcdSettings,
        frames_directory: Path,
        control_timeout_s: float,
    ) -> None:
        super().__init__(prefix, name=name)
        self.settings = settings
        self.control_timeout_s = control_timeout_s
        self.frames_directory = frames_directory
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
        self._file: OpenFile | None = None
        self._frames = 0
        self._last_id: int | None = None
        self._counter: int | None = None
        self._last_frame: tuple[int, int] | None = None
        self._may_repeat = False
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._resource_is_sent = False
        self._exposure: Motion | None = None
        self._given_up = False
        self._is_unsure = False
        self._file_lock = threading.Lock()
        # One thread reads all frames: of each that reads some, malloc keeps as much memory as that took.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"{name} frames")

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
    def has_frame(self) -> bool:
        """Whether a frame was taken that nobody has collected yet."""
        return bool(self._documents)

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

    def unstage(self) -> list[object]:
        """Close the file that a failed plan left open, and put the settings back."""
        self.close()
        unstaged: list[object] = super().unstage()
        return unstaged

    def describe(self) -> dict[str, Any]:
        """Describe the numbers, and the frame as an external asset."""
        ny, nx = self._sensor_shape()
        described: dict[str, Any] = super().describe()
        described["ccd_exposure_s"]["units"] = "s"
        frame = {
            "source": f"PV:{self.prefix}",
            "dtype": "array",
            "dtype_numpy": "<u2",
            "shape": [1, ny, nx],
            "dims": ["frame", "y", "x"],
            "external": "STREAM:",
        }
        return {"ccd": frame, **described}

    def trigger(self) -> Motion:
        """Expose once; the status is done when the frame has been read back from the file.

        The status fails with `CameraNotReady` if region, binning, data type or temperature are not
        those that are expected, with `FrameRefused` if the frame is missing, repeated, or has another
        unique id, size or type, with `TimeoutError` if the camera does not finish; it is stopped then.

        Raises
        ------
        RuntimeError
            If no file is open.
        """
        if self._file is None:
            raise RuntimeError(
                f"{self.name}: no frame file is open; set {self.name}.frame_file first"
            )

        def steps(motion: Motion) -> None:
            if not self._documents:
                self._expose(motion)

        self._exposure = Motion(self, steps, after=self._exposure)
        return self._exposure.start()

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Hand over the documents of the frame that was taken last, once."""
        documents, self._documents = self._documents, []
        yield from documents

    def discard_frame(self, reason: str) -> None:
        """Forget the frame that was taken last, if its documents have not been collected."""
        documents, self._documents = self._documents, []
        if not documents:
            return
        self._resource_is_sent = documents[0][0] != "stream_resource"
        self._may_repeat = True
        assert self._last_frame is not None
        self.exposure_number.put(self._last_frame[1])
        logger.info("%s: frame %d is discarded: %s", self.name, self.frame_number.get(), reason)

    def give_up_exposure(self) -> None:
        """End an exposure in progress without a frame; nothing to do where there is none.

        The file plug-in stops listening before the camera stops: a frame is either in the file
        already, and complete, or will never be.
        """
        exposure = self._exposure
        if exposure is None or exposure.done:
            return
        exposure.interrupt(success=True)
        self._given_up = True
        self._write(self.hdf1.enable, "Disable")
        self.cam.acquire.put(0)

    def pause(self) -> None:
        """Give up the exposure in progress: the RunEngine pauses."""
        self.give_up_exposure()

    def resume(self) -> None:
        """Do nothing: the RunEngine takes the interrupted exposure again."""

    def open(self, name: str) -> None:
        """Let the server begin the file `name`; nothing to do if that is the file that is open.

        Raises
        ------
        OSError, TimeoutError, CameraNotReady
            If the folder cannot be made, the server does not see it or does not begin to
            capture, or the camera does not make frames of the expected size and type.
        """
        with self._file_lock:
            if self._file is not None and self._file.name == name:
                return
            self._close()
            self._begin(name)

    def problems(self) -> list[str]:
        """Say what an exposure would be refused for now, a line each: settings, temperature, the frames' folder."""
        found = []
        for check in (self._check_format, self._check_temperature, self._check_folder):
            try:
                check()
            except Exception as refusal:  # the others are looked for, too
                found.append(str(refusal))
        return found

    def _check_folder(self) -> None:
        with self._file_lock:
            if self._file is None:
                self._point_to(self.frames_directory)

    def close(self) -> None:
        """Let the server close the open file under its final name; nothing to do without one."""
        with self._file_lock:
            self._close()

    def _begin(self, name: str) -> None:
        hdf1 = self.hdf1
        self._check_format()
        path = self._free_path(name)
        self._point_to(path.parent)
        self._write(hdf1.file_name, path.name)
        hdf1.capture.put(1)  # completes when the capture ends, so its readback is watched
        if not _becomes(lambda: hdf1.capture.get() == 1, self.control_timeout_s):
            raise TimeoutError(
                f"{self.name}: no capture began within {self.control_timeout_s:g} s: "
                f"{hdf1.write_message.pvname} = {hdf1.write_message.get()!r}; check "
                f"{hdf1.capture.setpoint_pvname}"
            )
        self._file = OpenFile(name, path, str(uuid.uuid4()), self._sensor_shape())
        self._frames = 0
        self._resource_is_sent = False
        self._counter = None
        self._may_repeat = True

    def _point_to(self, folder: Path) -> None:
        hdf1 = self.hdf1
        folder.mkdir(parents=True, exist_ok=True)
        self._write(hdf1.file_path, f"{folder}/")
        if not hdf1.file_path_exists.get():
            raise FileNotFoundError(
                f"{self.name}: the detector's server does not see the folder {folder} "
                f"({hdf1.file_path_exists.pvname} is 0); check that it is shared"
            )

    def _close(self) -> None:
        if self._file is None:
            return
        self.give_up_exposure()
        if self._exposure is not None:
            self._exposure.join()
        path, self._file, self._documents = self._file.path, None, []
        self._write(self.hdf1.capture, 0)
        if self._frames and not path.exists():
            raise FileNotFoundError(
                f"{self.name}: {path} did not get its final name: "
                f"{self.hdf1.write_message.pvname} = {self.hdf1.write_message.get()!r}; check the "
                "detector's storage"
            )

    def _expose(self, motion: Motion) -> None:
        """Take one frame; whatever fails, the next exposure begins by making sure of everything."""
        if self._is_unsure or self.hdf1.capture.get(use_monitor=True) != 1:
            self._make_sure()
        self._is_unsure = True
        self._check_format()
        self._check_temperature()
        try:
            self._take(motion)
        except Interrupted:
            self._is_unsure = False
            raise
        self._is_unsure = False

    def _make_sure(self) -> None:
        """Write the settings again; go on in another file where this one is not captured to."""
        assert self._file is not None
        for signal, value in self.stage_sigs.items():
            self._write(signal, value)
        exposure_s = self.cam.acquire_time
        if exposure_s.wanted is not None and exposure_s.get() != exposure_s.wanted:
            self._write(exposure_s, exposure_s.wanted)
        capturing = self.hdf1.capture.get(use_monitor=False) == 1
        if not capturing or int(self.hdf1.num_captured.get()) != self._frames:
            self._write(self.hdf1.capture, 0)
            self._last_id = None
            self._begin(self._file.name)

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

    def _take(self, motion: Motion) -> None:
        exposure_s = float(self.cam.acquire_time.get())
        limit_s = exposure_s + self.settings.timeout_s
        ended = threading.Event()

        def end(**_: Any) -> None:
            ended.set()
            motion.notify()

        number = self._number_exposure()
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
            if int(self.hdf1.num_captured.get()) == self._frames:
                raise
        self._accept(exposure_s, number)

    def _number_exposure(self) -> int:
        """Let the camera count from the number of this exposure; within a file it does so by itself."""
        number = int(self.exposure_number.get())
        counted, self._counter = self._counter, None  # unknown until there is a frame
        if counted != number and int(self.cam.array_counter.get()) != number:
            self._write(self.cam.array_counter, number)
        return number

    def _stop(self, ended: threading.Event) -> str:
        """Stop an exposure that does not end by itself, without a frame; returns what came of it."""
        try:
            self._write(self.hdf1.enable, "Disable")
            self._given_up = True
            self.cam.acquire.put(0)
            stopped = ended.wait(self.control_timeout_s)
        except Exception:  # the exposure has failed anyway, and that is what has to be told
            stopped = False
        if stopped:
            return "the camera was stopped: take the exposure again"
        return f"the camera does not stop either: check {self.cam.acquire.setpoint_pvname}"

    def _look_at(self, file: OpenFile, number: int) -> tuple[int, FrameNumbers]:
        frame_vu = file.read(number)
        crc32 = zlib.crc32(np.ascontiguousarray(frame_vu, "<u2").data)
        return crc32, FrameNumbers.of(frame_vu, self.settings.saturation_counts)

    def _accept(self, exposure_s: float, exposure_number: int) -> None:
        """Check the frame that the server says it has written, and prepare its documents."""
        file, hdf1, number = self._file, self.hdf1, self._frames
        assert file is not None
        counted = _becomes(lambda: int(hdf1.num_captured.get()) > number, MONITOR_TIMEOUT_S)
        captured = int(hdf1.num_captured.get())
        if not counted and int(hdf1.write_status.get()) != 0:
            raise FrameRefused(
                f"{self.name}: frame {number} of {file.path.name} was not written: "
                f"{hdf1.write_message.pvname} = {hdf1.write_message.get()!r}; check the detector's "
                "storage, then take the exposure again"
            )
        if captured != number + 1:
            raise FrameRefused(
                f"{self.name}: {hdf1.num_captured.pvname} = {captured} after exposure {number + 1} "
                f"of {file.path.name}, expected {number + 1}; {hdf1.dropped_arrays.pvname} = "
                f"{hdf1.dropped_arrays.get()}; take the exposure again"
            )
        self._frames = captured
        self._check_unique_id(exposure_number + 1)
        crc32, numbers = self._reader.submit(self._look_at, file, number).result()
        if not numbers.is_uniform and self._is_the_last_one(crc32, exposure_number):
            raise FrameRefused(
                f"{self.name}: frame {number} of {file.path.name} equals the one before bit by "
                "bit; take the exposure again"
            )
        self._counter = exposure_number + 1
        self._last_frame, self._may_repeat = (crc32, exposure_number), False
        self.exposure_number.put(exposure_number + 1)
        self.frame_number.put(number)
        self.frame_crc32.put(crc32)
        self.exposure_s.put(exposure_s)
        self.saturated_fraction.put(numbers.saturated_fraction)
        self.bright_counts.put(numbers.bright_counts)
        self.mean_counts.put(numbers.mean_counts)
        documents = [("stream_datum", file.datum(number))]
        if not self._resource_is_sent:
            documents.insert(0, ("stream_resource", file.resource()))
            self._resource_is_sent = True
        self._documents = documents

    def _check_unique_id(self, expected: int) -> None:
        """Refuse a frame that the camera did not count as this exposure."""
        signal = self.hdf1.unique_id
        found, last = int(signal.get()), self._last_id
        if found != expected and _becomes(lambda: int(signal.get()) == expected, MONITOR_TIMEOUT_S):
            found = expected
        self._last_id = found
        if found != expected:
            why = (
                "the camera handed out its previous frame again"
                if found == last
                else "somebody else exposes, or sets the camera's counter"
            )
            raise FrameRefused(
                f"{self.name}: {signal.pvname} = {found}, expected {expected}: {why}; take the "
                "exposure again"
            )

    def _is_the_last_one(self, crc32: int, exposure_number: int) -> bool:
        """Whether a frame is the last one again; an exposure that was taken again may equal itself."""
        if self._last_frame is None or crc32 != self._last_frame[0]:
            return False
        return not self._may_repeat or exposure_number != self._last_frame[1]

    def _sensor_shape(self) -> tuple[int, int]:
        size = self.cam.max_size
        nx, ny = (each.get(use_monitor=True) for each in (size.max_size_x, size.max_size_y))
        return int(ny), int(nx)

    def _free_path(self, name: str) -> Path:
        for part in itertools.count(1):
            suffix = "" if part == 1 else f"_{part}"
            path = self.frames_directory / f"{name}{suffix}.h5"
            if not (path.exists() or path.with_name(path.name + TEMPORARY_SUFFIX).exists()):
                return path
        raise AssertionError("unreachable")

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


def _becomes(reached: Callable[[], bool], timeout_s: float) -> bool:
    """Ask until something is true; counters may follow the end of an exposure by milliseconds."""
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True
