"""The NDFileHDF5 plug-in: which frames go into which file, and when."""

import asyncio
import errno
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from caproto import ChannelData

from mistral_txm.simulated_beamline.area_detector import (
    DATA_TYPES,
    DISABLE_ENABLE,
    FILE_PORT,
    NO_YES,
    Array,
    add_constants,
)
from mistral_txm.simulated_beamline.array_queue import ArrayQueue, Numbered
from mistral_txm.simulated_beamline.array_records import ArrayRecords
from mistral_txm.simulated_beamline.channels import (
    Database,
    double,
    integer,
    long_string,
    menu,
    post,
    with_readback,
)
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.file_names import FileNames
from mistral_txm.simulated_beamline.frame_file import FrameFile
from mistral_txm.simulated_beamline.plugin_records import add_plugin_records

_CANNOT_WRITE = (OSError, ValueError, RuntimeError)
"""What h5py and the operating system raise."""


class HDF5FilePlugin:
    """The plug-in at `prefix` that writes the arrays of a camera of `shape_vu` into files.

    - *Single*: every array into a file of its own, by `AutoSave` or `WriteFile`.
    - *Capture*: `NumCapture` arrays into memory, then all into one file, by `AutoSave` or
      `WriteFile`.
    - *Stream*: one file that grows, until `NumCapture` arrays are in it (0: until `Capture` is put
      to 0); each array is on the disk before the next one comes.

    As in areaDetector, a stream of `NumCapture` = 0 ends where its first array cannot be written.
    Unlike there, a file is never overwritten.
    """

    def __init__(
        self,
        database: Database,
        prefix: str,
        shape_vu: tuple[int, int],
        worker: Executor,
        faults: Faults,
    ) -> None:
        self._worker = worker
        self._faults = faults
        self._file: FrameFile | None = None
        self._memory: list[Numbered] = []
        self._last: Numbered | None = None
        self._capture_ended = asyncio.Event()
        self._capture_ended.set()
        self._writing = asyncio.Lock()

        def pair(name: str, make: Callable[..., ChannelData], *args: object) -> ChannelData:
            return with_readback(database, prefix + name, make, *args)

        self._queue = ArrayQueue(database, prefix, self._process)
        self._arrays = ArrayRecords(database, prefix, FILE_PORT)
        self._names = FileNames(database, prefix)
        self._enable = pair("EnableCallbacks", menu, DISABLE_ENABLE, 1)
        self._blocking = pair("BlockingCallbacks", menu, NO_YES, 1)
        pair("DroppedArrays", integer)
        self._dropped = database[f"{prefix}DroppedArrays_RBV"]
        pair("DataType", menu, tuple(DATA_TYPES), 3)
        self._data_type = database[f"{prefix}DataType_RBV"]
        self._mode = pair("FileWriteMode", menu, ("Single", "Capture", "Stream"), 2)
        self._auto_save = pair("AutoSave", menu, NO_YES, 1)
        self._lazy_open = pair("LazyOpen", menu, NO_YES)
        self._swmr_mode = pair("SWMRMode", menu, ("Off", "On"), 1)
        self._number_to_capture = pair("NumCapture", integer)
        self._capture = pair("Capture", menu, ("Done", "Capture"))
        self._capture.on_put = self._capture_put
        self._capture_readback = menu(("Done", "Capturing"))
        self._write_file = pair("WriteFile", menu, ("Done", "Write"))
        self._write_file.on_put = self._write_file_put
        self._write_file_readback = menu(("Done", "Writing"))
        free_capture = database[f"{prefix}FreeCapture"] = menu(("Done", "Free"))
        free_capture.on_put = self._free_capture_put
        self._captured = integer()
        self._swmr_active = menu(("Off", "Active"))
        self._write_status = menu(("Write OK", "Write error"))
        self._write_message = long_string()
        self._execution_time_ms = double(units="ms")
        add_plugin_records(database, prefix, shape_vu)
        add_constants(
            database,
            prefix,
            {
                "Capture_RBV": self._capture_readback,
                "WriteFile_RBV": self._write_file_readback,
                "NumCaptured_RBV": self._captured,
                "SWMRActive_RBV": self._swmr_active,
                "WriteStatus": self._write_status,
                "WriteMessage": self._write_message,
                "ExecutionTime_RBV": self._execution_time_ms,
            },
        )

    @property
    def capturing(self) -> bool:
        """Whether a capture is going on."""
        return not self._capture_ended.is_set()

    @property
    def pending(self) -> int:
        """How many arrays have come and are not in their file yet: NumQueuedArrays."""
        return self._queue.pending

    async def wait_until_idle(self) -> None:
        """Wait until no array is pending."""
        await self._queue.wait_until_idle()

    async def receive(self, array_vu: Array, unique_id: int) -> tuple[str, int] | None:
        """Take one array from the camera.

        Returns the final name of the file and the index in it, where it has been written before
        this returns: that is, with BlockingCallbacks and not into memory.
        """
        if self._enable.value != "Enable":
            return None
        arrived = Numbered(array_vu, unique_id)
        if await self._faults.spend("ccd_dropped_frame"):
            await post(self._dropped, int(self._dropped.value) + 1)
            return None
        if self._blocking.value == "Yes":
            return await self._process(arrived)
        if not await self._queue.add(arrived):
            await post(self._dropped, int(self._dropped.value) + 1)
        return None

    async def _process(self, arrived: Numbered) -> tuple[str, int] | None:
        began_s = time.monotonic()
        written = None
        async with self._writing:
            self._last = arrived
            await self._arrays.describe(arrived.array_vu.shape, arrived.array_vu.dtype)
            await self._arrays.stamp(arrived.unique_id)
            kinds = [np.dtype(dtype) for dtype in DATA_TYPES.values()]
            await post(self._data_type, kinds.index(arrived.array_vu.dtype))
            match str(self._mode.value):
                case "Single" if self._auto_save.value == "Yes":
                    written = await self._write_single(arrived)
                case "Capture" if self.capturing:
                    await self._remember(arrived)
                case "Stream" if self.capturing:
                    written = await self._stream(arrived)
            await self._arrays.count()
        await post(self._execution_time_ms, 1000 * (time.monotonic() - began_s))
        return written

    async def _write_single(self, arrived: Numbered) -> tuple[str, int] | None:
        await post(self._write_file_readback, 1)
        try:
            await self._write_all([arrived])
        finally:
            await post(self._write_file_readback, 0)
        if self._write_status.value != "Write OK":
            return None
        await post(self._captured, 1)
        return str(self._names.last), 0

    async def _remember(self, arrived: Numbered) -> None:
        wanted = int(self._number_to_capture.value)
        if len(self._memory) < wanted:
            self._memory.append(arrived)
            await post(self._captured, len(self._memory))
        if len(self._memory) == wanted:
            if self._auto_save.value == "Yes":
                await self._write_memory()
            await self._capture_done()

    async def _write_memory(self) -> None:
        await post(self._write_file_readback, 1)
        if self._memory:
            await self._write_all(self._memory)
        else:
            await self._report("no capture buffer present")
        self._memory = []
        await post(self._captured, 0)
        await post(self._write_file_readback, 0)

    async def _write_all(self, arrays: list[Numbered]) -> None:
        """Write arrays into the next file, and close it."""
        await self._report(None)
        file = None
        try:
            file = await self._open(arrays[0].array_vu)
            for each in arrays:
                await self._append(file, each)
        except _CANNOT_WRITE as error:
            await self._report(f"cannot write: {_cause(error)}")
        if file is not None:
            await self._close(file, FrameFile.complete)

    async def _stream(self, arrived: Numbered) -> tuple[str, int] | None:
        written = None
        await self._report(None)
        try:
            if self._file is None:
                self._file = await self._open(arrived.array_vu)
            index = await self._append(self._file, arrived)
        except _CANNOT_WRITE as error:
            await self._report(f"cannot write: {_cause(error)}")
        else:
            await post(self._captured, index + 1)
            written = str(self._file.final_path), index
        if int(self._captured.value) == int(self._number_to_capture.value):
            await self._finish(FrameFile.complete)
        return written

    async def _open(self, array_vu: Array) -> FrameFile:
        path = await self._names.next()
        self._check_storage(path)
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(path.parent))
        swmr = self._swmr_mode.value == "On"
        file: FrameFile = await self._work(
            partial(
                FrameFile,
                path,
                self._names.temporary_suffix,
                array_vu.shape,
                array_vu.dtype,
                swmr=swmr,
            )
        )
        await post(self._swmr_active, int(swmr))
        return file

    async def _append(self, file: FrameFile, arrived: Numbered) -> int:
        await asyncio.sleep(max(self._faults.amount("storage_delay"), 0.0))
        self._check_storage(file.path)
        index: int = await self._work(partial(file.append, *arrived))
        if await self._faults.spend("file_corrupted"):
            await self._work(partial(file.damage, index))
        return index

    async def _close(self, file: FrameFile, end: Callable[[FrameFile], None]) -> None:
        if self._faults.is_on("storage_away"):
            end = FrameFile.close
            await self._report(f"cannot close: {_cause(_error(errno.EIO, file.path))}")
        try:
            await self._work(partial(end, file))
        except _CANNOT_WRITE as error:
            await self._report(f"cannot close: {_cause(error)}")
        await post(self._swmr_active, 0)

    async def _work(self, job: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job)

    def _check_storage(self, path: Path) -> None:
        """Fail as the operating system does where a fault of the storage is on."""
        for fault, number in (("storage_away", errno.EIO), ("storage_full", errno.ENOSPC)):
            if self._faults.is_on(fault):
                raise _error(number, path)

    async def _report(self, message: str | None) -> None:
        """Set WriteStatus and WriteMessage; None: nothing is wrong."""
        await post(self._write_status, int(message is not None))
        await post(self._write_message, message or "")

    async def _capture_put(self, value: str) -> None:
        if value != "Capture":
            await self.end_capture()
        elif not self.capturing:
            async with self._writing:
                await self._begin_capture()
            await self._capture_ended.wait()

    async def _begin_capture(self) -> None:
        mode = str(self._mode.value)
        lazy = mode == "Stream" and self._lazy_open.value == "Yes"
        await self._report(None)
        await self._names.clear()
        if mode == "Single" or (self._last is None and not lazy):
            await self._report(
                "FileWriteMode Single does not capture"
                if mode == "Single"
                else "no array has come yet that tells the size: take one, or set LazyOpen"
            )
            await self._capture_done()
            return
        self._capture_ended.clear()
        self._memory = []
        await post(self._captured, 0)
        if mode == "Stream" and not lazy and self._last is not None:
            try:
                self._file = await self._open(self._last.array_vu)
            except _CANNOT_WRITE as error:
                await self._report(f"cannot open the file: {_cause(error)}")
                await self._capture_done()
                return
        await post(self._capture, 1)
        await post(self._capture_readback, 1)

    async def _write_file_put(self, value: str) -> None:
        if value != "Write":
            return
        async with self._writing:
            match str(self._mode.value):
                case "Single" if self._last is not None:
                    await self._write_single(self._last)
                case "Capture":
                    await self._write_memory()
                case _:
                    await self._report("there is no array to write")
        await post(self._write_file, 0)

    async def _free_capture_put(self, _value: str) -> None:
        async with self._writing:
            self._memory = []
            await post(self._captured, 0)

    async def end_capture(self) -> None:
        """End a capture and give its file its final name."""
        async with self._writing:
            await self._finish(FrameFile.complete)

    async def abandon_capture(self) -> None:
        """End a capture that is not complete: its file keeps its temporary name."""
        async with self._writing:
            await self._finish(FrameFile.close)

    async def _finish(self, end: Callable[[FrameFile], None]) -> None:
        if not self.capturing:
            return
        file, self._file = self._file, None
        if file is not None:
            await self._close(file, end)
        await self._capture_done()

    async def _capture_done(self) -> None:
        await post(self._capture, 0)
        await post(self._capture_readback, 0)
        self._capture_ended.set()


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _cause(error: Exception) -> str:
    """Say why a file cannot be written; HDF5, which raises RuntimeError too, hides it in the middle of a long text.

    >>> _cause(RuntimeError("Unable (file write failed: errno = 28, error message = 'No space left', buf = 0x5)"))
    'No space left'
    """
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}"
    found = re.search(r"error message = '([^']*)'", str(error))
    return found[1] if found else str(error)
