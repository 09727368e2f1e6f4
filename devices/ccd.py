"""The CCD: an areaDetector camera whose server writes frames, and proof that they are on disk."""

import itertools
import os
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py
import numpy as np
from numpy.typing import NDArray
from ophyd import Component, Device, Signal
from ophyd.areadetector.cam import CamBase
from ophyd.areadetector.plugins import HDF5Plugin_V34

from mistral_txm.devices.configuration import CcdSettings
from mistral_txm.devices.motion import Interrupted, Motion, last_seen

DATASET = "/entry/data/data"
"""Where NDFileHDF5 puts the frames, shape (frames, ny, nx)."""

TEMPORARY_SUFFIX = ".tmp"
"""What a file's name ends with until the file is complete."""

CONTROL_TIMEOUT_S = 5.0
"""How long the detector's server may take for what is not an exposure: to open, close, stop."""

MONITOR_TIMEOUT_S = 2.0
"""How much later than the end of an exposure its counters may arrive."""


class FrameRefused(RuntimeError):
    """A frame is not what was asked for; one line says what was found and expected."""


class Camera(CamBase):  # type: ignore[misc]  # ophyd is untyped
    """ADBase, with those settings in the configuration of a run that describe its frames."""

    lazy_wait_for_connection = False
    _default_configuration_attrs = ("gain", "manufacturer", "model", "temperature")

    def stage(self) -> list[object]:
        """Stage nothing: the CCD sets what it needs."""
        return [self]


class FrameWriter(HDF5Plugin_V34):  # type: ignore[misc]  # ophyd is untyped
    """NDFileHDF5 in stream mode: file after file, each under a temporary name until closed."""

    lazy_wait_for_connection = False

    def stage(self) -> list[object]:
        """Stage nothing: the CCD sets what it needs; files are opened lazily, so no priming."""
        return [self]


@dataclass(frozen=True)
class OpenFile:
    """A file that the server is writing, and what the documents call it."""

    name: str
    path: Path
    resource_uid: str
    shape_vu: tuple[int, int]

    @property
    def temporary_path(self) -> Path:
        """Where the file is until it is closed."""
        return self.path.with_name(self.path.name + TEMPORARY_SUFFIX)

    def resource(self) -> dict[str, Any]:
        """Make the document that names the file, once."""
        return {
            "uid": self.resource_uid,
            "data_key": "ccd",
            "mimetype": "application/x-hdf5",
            "uri": "file://localhost" + quote(str(self.path)),
            "parameters": {"dataset": DATASET, "chunk_shape": [1, *self.shape_vu]},
        }

    def datum(self, frame_number: int) -> dict[str, Any]:
        """Make the document that names one frame; the RunEngine fills in descriptor and numbers."""
        return {
            "uid": f"{self.resource_uid}/{frame_number}",
            "stream_resource": self.resource_uid,
            "descriptor": "",
            "indices": {"start": frame_number, "stop": frame_number + 1},
            "seq_nums": {"start": 0, "stop": 0},
        }

    def read(self, frame_number: int) -> NDArray[np.uint16]:
        """Read one frame ``[v, u]`` from the file that the server is still writing.

        Raises
        ------
        FrameRefused
            If it cannot be read, or its shape or type is not the one expected.
        """
        try:
            with h5py.File(self.temporary_path, "r", libver="latest", swmr=True) as file:
                dataset = file[DATASET]
                if dataset.shape[1:] != self.shape_vu or dataset.dtype != np.uint16:
                    raise FrameRefused(
                        f"{self.temporary_path}: frames are {dataset.dtype} {dataset.shape[1:]}, "
                        f"expected uint16 {self.shape_vu}; check region, binning and data type"
                    )
                frame_vu: NDArray[np.uint16] = dataset[frame_number]
        except (OSError, KeyError, ValueError, IndexError) as refusal:
            raise FrameRefused(
                f"{self.temporary_path}: frame {frame_number} cannot be read back ({refusal}); "
                "check that the detector's server writes where this process reads"
            ) from refusal
        return frame_vu


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
        return self._motion


class Ccd(Device):  # type: ignore[misc]  # ophyd is untyped
    """One exposure per trigger into the open frame file, one frame per reading.

    The server exposes and writes; then this device reads the frame back from the file. So the
    checksum in an Event says that the frame was on disk before the Event was made.

    A frame that was taken but not collected (a pause came between) is not taken again: the next
    trigger hands it over. An exposure that is given up because of a pause leaves no frame.
    Therefore the frames of a file and the Events that refer to it match one to one, in order.
    """

    cam = Component(Camera, "cam1:", kind="config")
    hdf1 = Component(FrameWriter, "HDF1:", kind="omitted")
    frame_file = Component(FrameFile, "", kind="omitted")
    frame_number = Component(Signal, value=-1, kind="normal")
    frame_crc32 = Component(Signal, value=0, kind="normal")
    exposure_s = Component(Signal, value=0.0, kind="normal")
    saturated_fraction = Component(Signal, value=0.0, kind="normal")
    mean_counts = Component(Signal, value=0.0, kind="hinted")

    def __init__(
        self, prefix: str, *, name: str, settings: CcdSettings, frames_directory: Path
    ) -> None:
        super().__init__(prefix, name=name)
        self.settings = settings
        self.frames_directory = frames_directory
        self.cam.max_size.lazy_wait_for_connection = False
        staged = {
            self.cam.image_mode: self.cam.ImageMode.SINGLE,
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
        }
        self.stage_sigs.update(staged)
        for signal in (*staged, self.cam.acquire_time):
            signal.put_complete = True
        self._file: OpenFile | None = None
        self._frames = 0
        self._unique_id: int | None = None
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._resource_is_sent = False
        self._exposure: Motion | None = None
        self._given_up = False
        self._file_lock = threading.Lock()

    @property
    def used_signals(self) -> tuple[Any, ...]:
        """The signals that an exposure needs: they have to connect."""
        cam, hdf1 = self.cam, self.hdf1
        return (
            *self.stage_sigs,
            *(getattr(cam, attribute) for attribute in cam.configuration_attrs),
            cam.acquire,
            cam.acquire_time,
            cam.data_type,
            cam.max_size.max_size_x,
            cam.max_size.max_size_y,
            hdf1.capture,
            hdf1.file_name,
            hdf1.file_path,
            hdf1.file_path_exists,
            hdf1.num_captured,
            hdf1.unique_id,
            hdf1.write_message,
        )

    def stage(self) -> list[object]:
        """Stop whatever the camera does, and set it up for single exposures into files."""
        self._write(self.cam.acquire, 0)
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

        The status fails with `FrameRefused` if the frame is missing, repeated or of another size or
        type, with `TimeoutError` if the camera does not finish.

        Raises
        ------
        RuntimeError
            If no file is open.
        """
        file = self._file
        if file is None:
            raise RuntimeError(
                f"{self.name}: no frame file is open; set {self.name}.frame_file first"
            )

        def steps(motion: Motion) -> None:
            if not self._documents:
                self._expose(motion, file)

        self._exposure = Motion(self, steps, after=self._exposure)
        return self._exposure

    def collect_asset_docs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Hand over the documents of the frame that was taken last, once."""
        documents, self._documents = self._documents, []
        yield from documents

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
        OSError, TimeoutError, FrameRefused
            If the folder cannot be made, the server does not see it or does not begin to
            capture, or the camera does not make frames of 16 bit.
        """
        with self._file_lock:
            if self._file is not None and self._file.name == name:
                return
            self._close()
            hdf1 = self.hdf1
            if self.cam.data_type.get(as_string=True) != "UInt16":
                raise FrameRefused(
                    f"{self.name}: {self.cam.data_type.pvname} = "
                    f"{self.cam.data_type.get(as_string=True)}, expected UInt16"
                )
            path = self._free_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write(hdf1.file_path, f"{path.parent}/")
            if not hdf1.file_path_exists.get():
                raise FileNotFoundError(
                    f"{self.name}: the detector's server does not see the folder {path.parent} "
                    f"({hdf1.file_path_exists.pvname} is 0); check that it is shared"
                )
            self._write(hdf1.file_name, path.name)
            hdf1.capture.put(1)  # completes when the capture ends, so its readback is watched
            if not _becomes(lambda: hdf1.capture.get() == 1, CONTROL_TIMEOUT_S):
                raise TimeoutError(
                    f"{self.name}: no capture began within {CONTROL_TIMEOUT_S} s: "
                    f"{hdf1.write_message.get()!r}; check {hdf1.capture.setpoint_pvname}"
                )
            self._file = OpenFile(name, path, str(uuid.uuid4()), self._sensor_shape())
            self._frames = 0
            self._resource_is_sent = False

    def close(self) -> None:
        """Let the server close the open file under its final name; nothing to do without one."""
        with self._file_lock:
            self._close()

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
                f"{self.hdf1.write_message.get()!r}; check the detector's server"
            )

    def _expose(self, motion: Motion, file: OpenFile) -> None:
        exposure_s = float(self.cam.acquire_time.get())
        limit_s = exposure_s + self.settings.timeout_s
        ended = threading.Event()

        def end(**_: Any) -> None:
            ended.set()
            motion.notify()

        with motion.uninterrupted():
            if self._given_up:
                self._write(self.hdf1.enable, "Enable")
                self._given_up = False
            self.cam.acquire.put(1, use_complete=True, callback=end)
        try:
            if not motion.wait_until(ended.is_set, limit_s):
                raise TimeoutError(
                    f"{self.name}: no frame within {limit_s} s of an exposure of {exposure_s} s; "
                    f"{last_seen(self.hdf1.num_captured)}; check the camera {self.prefix}"
                )
        except Interrupted:
            if not ended.wait(CONTROL_TIMEOUT_S):
                raise TimeoutError(
                    f"{self.name}: did not stop within {CONTROL_TIMEOUT_S} s; check the camera "
                    f"{self.prefix}"
                ) from None
            if int(self.hdf1.num_captured.get()) == self._frames:
                raise
        self._accept(file, exposure_s)

    def _accept(self, file: OpenFile, exposure_s: float) -> None:
        """Check the frame that the server says it has written, and prepare its documents."""
        hdf1, number = self.hdf1, self._frames
        counted = _becomes(lambda: int(hdf1.num_captured.get()) > number, MONITOR_TIMEOUT_S)
        captured = int(hdf1.num_captured.get())
        if not counted or captured != number + 1:
            raise FrameRefused(
                f"{self.name}: {hdf1.num_captured.pvname} = {captured} after exposure {number + 1} "
                f"of {file.path.name}, expected {number + 1}: {hdf1.write_message.get()!r}"
            )
        self._frames = captured
        if not _becomes(lambda: int(hdf1.unique_id.get()) != self._unique_id, MONITOR_TIMEOUT_S):
            raise FrameRefused(
                f"{self.name}: {hdf1.unique_id.pvname} is still {self._unique_id}: the camera "
                "handed out its previous frame again; take the exposure again"
            )
        self._unique_id = int(hdf1.unique_id.get())
        frame_vu = file.read(number)
        crc32 = zlib.crc32(frame_vu.astype("<u2", copy=False).tobytes())
        if number and crc32 == self.frame_crc32.get() and frame_vu.min() != frame_vu.max():
            raise FrameRefused(
                f"{self.name}: frame {number} of {file.path.name} equals the one before bit by "
                "bit; take the exposure again"
            )
        saturated = int(np.count_nonzero(frame_vu >= self.settings.saturation_counts))
        self.frame_number.put(number)
        self.frame_crc32.put(crc32)
        self.exposure_s.put(exposure_s)
        self.saturated_fraction.put(saturated / frame_vu.size)
        self.mean_counts.put(float(frame_vu.mean()))
        documents = [("stream_datum", file.datum(number))]
        if not self._resource_is_sent:
            documents.insert(0, ("stream_resource", file.resource()))
            self._resource_is_sent = True
        self._documents = documents

    def _sensor_shape(self) -> tuple[int, int]:
        size = self.cam.max_size
        return int(size.max_size_y.get()), int(size.max_size_x.get())

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
        if not done.wait(CONTROL_TIMEOUT_S):
            raise TimeoutError(
                f"{self.name}: {signal.setpoint_pvname} did not take {value!r} within "
                f"{CONTROL_TIMEOUT_S} s; check the detector's server"
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
