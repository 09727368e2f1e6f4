"""The CCD: one exposure per trigger into the frame file that is open, and proof that its frame is on disk."""

import itertools
import logging
import threading
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from ophyd import Component, Device, Signal
from ophyd.status import DeviceStatus

from mistral_txm.devices.area_detector import AreaDetector, becomes
from mistral_txm.devices.configuration import CcdSettings
from mistral_txm.devices.frame_store import (
    TEMPORARY_SUFFIX,
    FrameNumbers,
    FrameRefused,
    OpenFile,
)
from mistral_txm.devices.motion import Interrupted, Motion, Setting

logger = logging.getLogger(__name__)

MONITOR_TIMEOUT_S = 2.0
"""How much later than the end of an exposure its counters may arrive."""


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


class Ccd(AreaDetector):
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
    """

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
        super().__init__(prefix, name=name, settings=settings, control_timeout_s=control_timeout_s)
        self.frames_directory = frames_directory
        self._file: OpenFile | None = None
        self._frames = 0
        self._last_id: int | None = None
        self._last_frame: tuple[int, int] | None = None
        self._may_repeat = False
        self._documents: list[tuple[str, dict[str, Any]]] = []
        self._resource_is_sent = False
        self._exposure: Motion | None = None
        self._is_unsure = False
        self._file_lock = threading.Lock()
        # One thread reads all frames: of each that reads some, malloc keeps as much memory as that took.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"{name} frames")

    @property
    def has_frame(self) -> bool:
        """Whether a frame was taken that nobody has collected yet."""
        return bool(self._documents)

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
        """End an exposure in progress without a frame; nothing to do where there is none."""
        exposure = self._exposure
        if exposure is None or exposure.done:
            return
        exposure.interrupt(success=True)
        self._halt()

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
        self._check_format()
        path = self._free_path(name)
        self._capture_to(path)
        self._file = OpenFile(name, path, str(uuid.uuid4()), self._sensor_shape())
        self._frames = 0
        self._resource_is_sent = False
        self._may_repeat = True

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
        number = int(self.exposure_number.get())
        try:
            exposure_s = self._take(motion, number, self._frames)
        except Interrupted:
            self._is_unsure = False
            raise
        self._accept(exposure_s, number)
        self._is_unsure = False

    def _make_sure(self) -> None:
        """Write the settings again; go on in another file where this one is not captured to."""
        assert self._file is not None
        self._set_up()
        capturing = self.hdf1.capture.get(use_monitor=False) == 1
        if not capturing or int(self.hdf1.num_captured.get()) != self._frames:
            self._write(self.hdf1.capture, 0)
            self._last_id = None
            self._begin(self._file.name)

    def _look_at(self, file: OpenFile, number: int) -> tuple[int, FrameNumbers]:
        frame_vu = file.read(number)
        crc32 = zlib.crc32(np.ascontiguousarray(frame_vu, "<u2").data)
        return crc32, FrameNumbers.of(frame_vu, self.settings.saturation_counts)

    def _accept(self, exposure_s: float, exposure_number: int) -> None:
        """Check the frame that the server says it has written, and prepare its documents."""
        file, hdf1, number = self._file, self.hdf1, self._frames
        assert file is not None
        counted = becomes(lambda: int(hdf1.num_captured.get()) > number, MONITOR_TIMEOUT_S)
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
        if found != expected and becomes(lambda: int(signal.get()) == expected, MONITOR_TIMEOUT_S):
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

    def _free_path(self, name: str) -> Path:
        for part in itertools.count(1):
            suffix = "" if part == 1 else f"_{part}"
            path = self.frames_directory / f"{name}{suffix}.h5"
            if not (path.exists() or path.with_name(path.name + TEMPORARY_SUFFIX).exists()):
                return path
        raise AssertionError("unreachable")
