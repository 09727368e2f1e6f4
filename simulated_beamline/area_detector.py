"""A CCD behind areaDetector's process variables: the ADBase camera and the NDFileHDF5 plug-in.

Source: ADCore R3 documentation (areaDetector, pluginDoc, NDPluginFile, NDFileHDF5) and the record
names in ADBase.template, NDPluginBase.template, NDFile.template and NDFileHDF5.template. `Acquire`
and `Capture` are busy records: a put-callback completes when the acquisition or the capture ends.
Callbacks block, so a frame is in its file before `Acquire` falls. A file is never overwritten.
"""

import asyncio
import errno
import re
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

import numpy as np
from caproto import ChannelData
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.channels import (
    Database,
    add_fixed,
    double,
    integer,
    long_string,
    menu,
    post,
    string,
    with_readback,
)
from mistral_txm.simulated_beamline.frame_file import FrameFile

Frame = NDArray[np.uint16]

DATA_TYPES = (
    "Int8",
    "UInt8",
    "Int16",
    "UInt16",
    "Int32",
    "UInt32",
    "Int64",
    "UInt64",
    "Float32",
    "Float64",
)
COLOR_MODES = ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421")
NO_YES = ("No", "Yes")
DISABLE_ENABLE = ("Disable", "Enable")
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
PORT = "CCD"
FILE_PORT = "HDF1"


class Exposer(Protocol):
    """What the camera asks for a frame."""

    async def begin(self, exposure_s: float, index_in_file: int | None) -> Callable[[], Frame]:
        """Freeze the state of the beamline now; the result renders the frame, in another thread.

        `index_in_file` is None where nothing captures.
        """


def _constants(database: Database, prefix: str, channels: dict[str, ChannelData]) -> None:
    for name, channel in channels.items():
        channel.read_only = True
        database[f"{prefix}{name}"] = channel


class HDF5FilePlugin:
    """The NDFileHDF5 plug-in at `prefix`: captures frames of `shape_vu` into files."""

    def __init__(
        self, database: Database, prefix: str, shape_vu: tuple[int, int], worker: Executor
    ) -> None:
        self._worker = worker
        self._shape_vu = shape_vu
        self._file: FrameFile | None = None
        self._capturing = False
        self._capture_ended = asyncio.Event()
        self._writing = asyncio.Lock()

        def pair(name: str, make: Callable[..., ChannelData], *args: object) -> ChannelData:
            return with_readback(database, prefix + name, make, *args)

        self._file_path = pair("FilePath", long_string)
        self._file_path.on_put = self._file_path_put
        self._file_path_readback = database[f"{prefix}FilePath_RBV"]
        self._file_name = pair("FileName", long_string)
        self._file_template = pair("FileTemplate", long_string, "%s%s_%6.6d.h5")
        self._file_number = pair("FileNumber", integer)
        self._file_number_readback = database[f"{prefix}FileNumber_RBV"]
        self._auto_increment = pair("AutoIncrement", menu, NO_YES, 1)
        self._write_mode = pair("FileWriteMode", menu, ("Single", "Capture", "Stream"), 2)
        self._temporary_suffix = pair("TempSuffix", long_string)
        self._create_directory = pair("CreateDirectory", integer)
        self._number_to_capture = pair("NumCapture", integer)
        self._capture = pair("Capture", menu, ("Done", "Capture"))
        self._capture.on_put = self._capture_put
        self._capture_readback = database[f"{prefix}Capture_RBV"]
        self._lazy_open = pair("LazyOpen", menu, NO_YES)
        self._enable = pair("EnableCallbacks", menu, DISABLE_ENABLE, 1)
        self._array_counter = pair("ArrayCounter", integer)
        self._array_counter_readback = database[f"{prefix}ArrayCounter_RBV"]
        self._dropped = pair("DroppedArrays", integer)
        ny, nx = shape_vu
        self._captured = integer()
        self._path_exists = menu(NO_YES)
        self._full_name = long_string()
        self._unique_id = integer()
        self._swmr_active = menu(("Off", "Active"))
        self._write_status = menu(("Write OK", "Write error"))
        self._write_message = long_string()
        _constants(
            database,
            prefix,
            {
                "NumCaptured_RBV": self._captured,
                "FilePathExists_RBV": self._path_exists,
                "FullFileName_RBV": self._full_name,
                "UniqueId_RBV": self._unique_id,
                "SWMRActive_RBV": self._swmr_active,
                "WriteStatus": self._write_status,
                "WriteMessage": self._write_message,
                "SWMRSupported_RBV": menu(("Not Supported", "Supported"), 1),
                "SWMRCbCounter_RBV": integer(),
                "PortName_RBV": string(FILE_PORT),
                "PluginType_RBV": string("NDFileHDF5"),
                "DriverVersion_RBV": string("3.4.0"),
                "ADCoreVersion_RBV": string("3.4.0"),
                "ArraySize_RBV": integer(2 * ny * nx, units="B"),
                "ArraySizeX_RBV": integer(nx),
                "ArraySizeY_RBV": integer(ny),
                "ArraySizeZ_RBV": integer(0),
                "BayerPattern_RBV": menu(("RGGB", "GBRG", "GRBG", "BGGR")),
                "ExecutionTime_RBV": double(units="ms"),
                "EpicsTSSec_RBV": integer(),
                "EpicsTSNsec_RBV": integer(),
                "TimeStamp_RBV": double(units="s"),
                "ArrayRate_RBV": double(units="Hz"),
                "MaxThreads_RBV": integer(1),
                "PoolAllocBuffers": integer(),
                "PoolFreeBuffers": integer(),
                "PoolMaxBuffers": integer(),
                "PoolMaxMem": double(units="MiB"),
                "PoolUsedBuffers": integer(),
                "PoolUsedMem": double(units="MiB"),
                "XMLErrorMsg_RBV": long_string(),
                "XMLValid_RBV": menu(NO_YES, 1),
            },
        )
        _add_plugin_settings(database, prefix, shape_vu)

    @property
    def capturing(self) -> bool:
        """Whether a capture is going on."""
        return self._capturing

    @property
    def next_index(self) -> int:
        """The index that the next captured frame will have in its file."""
        return int(self._captured.value)

    async def _file_path_put(self, value: str) -> None:
        """Add the trailing slash, create folders as CreateDirectory allows, look for the path."""
        path = value if value.endswith("/") else f"{value}/"
        folder = Path(path)
        depth = -int(self._create_directory.value)
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        if folder.is_absolute() and 0 < len(missing) <= depth:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                await self._report_error(f"cannot create {folder}: {error.strerror}")
        await post(self._path_exists, int(folder.is_dir()))
        await post(self._file_path, path)
        await post(self._file_path_readback, path)

    async def _report_error(self, message: str) -> None:
        await post(self._write_status, 1)
        await post(self._write_message, message)

    async def _capture_put(self, value: str) -> None:
        if value == "Capture":
            if not self._capturing:
                await self._begin_capture()
                await self._capture_ended.wait()
        else:
            await self.end_capture()

    async def _begin_capture(self) -> None:
        await post(self._write_status, 0)
        await post(self._write_message, "")
        await post(self._captured, 0)
        if self._write_mode.value != "Stream":
            await self._report_error("FileWriteMode must be Stream")
            await self._capture_done()
            return
        self._capturing = True
        self._capture_ended.clear()
        await post(self._capture_readback, 1)
        if self._lazy_open.value == "No":
            await self._open()

    async def _open(self) -> None:
        """Open the next file; on failure the capture ends with the reason in WriteMessage."""
        number = int(self._file_number.value)
        folder = str(self._file_path.value)
        try:
            full_name = format_file_name(
                str(self._file_template.value), folder, str(self._file_name.value), number
            )
            await post(self._full_name, full_name)
            if not Path(folder).is_dir():
                raise FileNotFoundError(errno.ENOENT, "no such folder", folder)
            self._file = await asyncio.get_running_loop().run_in_executor(
                self._worker,
                FrameFile,
                Path(full_name),
                str(self._temporary_suffix.value),
                self._shape_vu,
            )
        except (OSError, ValueError, RuntimeError) as error:
            await self._report_error(f"cannot open the file: {_cause(error)}")
            await self._capture_done()
            return
        if self._auto_increment.value == "Yes":
            await post(self._file_number, number + 1)
            await post(self._file_number_readback, number + 1)
        await post(self._swmr_active, 1)

    async def receive(self, frame_vu: Frame, unique_id: int) -> None:
        """Take one frame from the camera, and write it where a capture is going on."""
        if self._enable.value != "Enable":
            return
        counter = int(self._array_counter_readback.value) + 1
        async with self._writing:
            if self._capturing and self._file is None:
                await self._open()
            if self._capturing and self._file is not None:
                try:
                    index = await asyncio.get_running_loop().run_in_executor(
                        self._worker, self._file.append, frame_vu, unique_id
                    )
                except (OSError, ValueError, RuntimeError) as error:
                    await self._report_error(f"cannot write: {_cause(error)}")
                else:
                    await post(self._captured, index + 1)
        await post(self._unique_id, unique_id)
        await post(self._array_counter, counter)
        await post(self._array_counter_readback, counter)
        wanted = int(self._number_to_capture.value)
        if self._capturing and 0 < wanted <= int(self._captured.value):
            await self.end_capture()

    async def end_capture(self) -> None:
        """End a capture and give its file its final name."""
        await self._end_capture(FrameFile.complete)

    async def abandon_capture(self) -> None:
        """End a capture that is not complete: its file keeps its temporary name."""
        await self._end_capture(FrameFile.close)

    async def _end_capture(self, end: Callable[[FrameFile], None]) -> None:
        async with self._writing:
            if not self._capturing:
                return
            file, self._file = self._file, None
            if file is not None:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._worker, end, file)
                except (OSError, RuntimeError) as error:
                    await self._report_error(f"cannot close: {_cause(error)}")
            await self._capture_done()

    async def _capture_done(self) -> None:
        self._capturing = False
        await post(self._swmr_active, 0)
        await post(self._capture, 0)
        await post(self._capture_readback, 0)
        self._capture_ended.set()


def _cause(error: Exception) -> str:
    """Say why a file cannot be written; HDF5, which raises RuntimeError too, hides it in the middle of a long text.

    >>> _cause(RuntimeError("Unable (file write failed: errno = 28, error message = 'No space left', buf = 0x5)"))
    'No space left'
    """
    found = re.search(r"error message = '([^']*)'", str(error))
    return found[1] if found else str(error)


def format_file_name(template: str, folder: str, name: str, number: int) -> str:
    """Return the file name as areaDetector's epicsSnprintf makes it from FileTemplate.

    The template takes path, name and number in this order, and may leave out the last ones.

    >>> format_file_name("%s%s_%6.6d.h5", "/data/", "frames", 7)
    '/data/frames_000007.h5'
    >>> format_file_name("%s%s.h5", "/data/", "frames", 7)
    '/data/frames.h5'

    Raises ValueError for a template that does not begin with two %s.
    """
    conversions = re.findall(r"%[-+ 0#]*\d*(?:\.\d+)?([a-zA-Z%])", template)
    kinds = "".join(kind for kind in conversions if kind != "%")
    if kinds not in ("ss", "ssd"):
        raise ValueError(f"FileTemplate {template!r}: expected %s%s or %s%s..%d in this order")
    values: tuple[object, ...] = (folder, name, number)
    return template % values[: len(kinds)]


def _add_plugin_settings(database: Database, prefix: str, shape_vu: tuple[int, int]) -> None:
    """Add the settings that a client may write and read, and that change nothing here."""
    ny, nx = shape_vu
    integers = {
        "NDArrayAddress": 0,
        "ArraySize0": nx,
        "ArraySize1": ny,
        **{f"ArraySize{axis}": 0 for axis in range(2, 10)},
        **{f"Dim{axis}SA": 0 for axis in range(10)},
        "Dimensions": 2,
        "NDimensions": 2,
        "DisorderedArrays": 0,
        "DroppedOutputArrays": 0,
        "NumThreads": 1,
        "QueueSize": 20,
        "SortSize": 10,
        "BloscLevel": 5,
        "BoundaryAlign": 0,
        "BoundaryThreshold": 0,
        "DataBitsOffset": 0,
        "NumDataBits": 16,
        "NumExtraDims": 0,
        "NumColChunks": nx,
        "NumRowChunks": ny,
        "NumFramesChunks": 1,
        "NumFramesFlush": 1,
        "NDAttributeChunk": 0,
        "SZipNumPixels": 16,
        "ZLevel": 6,
        **{f"ExtraDimSize{axis}": 1 for axis in "XYN3456789"},
        **{f"ExtraDimChunk{axis}": 1 for axis in "XY3456789"},
    }
    doubles = {
        "MinCallbackTime": 0.0,
        "MaxArrayRate": 0.0,
        "MaxByteRate": 0.0,
        "SortTime": 0.1,
        "FillValue": 0.0,
    }
    menus: dict[str, tuple[tuple[str, ...], int]] = {
        "BlockingCallbacks": (NO_YES, 1),
        "ArrayCallbacks": (DISABLE_ENABLE, 1),
        "ColorMode": (COLOR_MODES, 0),
        "DataType": (DATA_TYPES, 3),
        "SortMode": (("Unsorted", "Sorted"), 0),
        "AutoSave": (NO_YES, 1),
        "DeleteDriverFile": (NO_YES, 0),
        "FileFormat": (("HDF5",), 0),
        "ReadFile": (("Done", "Read"), 0),
        "WriteFile": (("Done", "Write"), 0),
        "Compression": (("None", "N-bit", "szip", "zlib", "blosc"), 0),
        "BloscCompressor": (("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"), 0),
        "BloscShuffle": (("None", "ByteShuffle", "BitShuffle"), 0),
        "DimAttDatasets": (NO_YES, 0),
        "PositionMode": (("Off", "On"), 0),
        "SWMRMode": (("Off", "On"), 1),
        "StoreAttr": (NO_YES, 1),
        "StorePerform": (NO_YES, 0),
    }
    texts = {
        "XMLFileName": "",
        **{f"PosIndexDim{axis}": "" for axis in "XYN3456789"},
        **{f"PosNameDim{axis}": "" for axis in "XYN3456789"},
    }
    for name, value in integers.items():
        with_readback(database, prefix + name, integer, value)
    for name, number in doubles.items():
        with_readback(database, prefix + name, double, number)
    for name, (choices, index) in menus.items():
        with_readback(database, prefix + name, menu, choices, index)
    for name, text in texts.items():
        with_readback(database, prefix + name, long_string, text)
    with_readback(database, f"{prefix}NDArrayPort", string, PORT)
    for axis in "XYN3456789":
        database[f"{prefix}ExtraDimName{axis}_RBV"] = string(read_only=True)
    for name in ("NDAttributesFile", "NDAttributesMacros"):
        database[prefix + name] = long_string()
    for name in ("QueueFree", "QueueFreeLow", "QueueUse", "QueueUseHIGH", "QueueUseHIHI"):
        database[prefix + name] = integer(20 if name == "QueueFree" else 0)
    for name in ("SortFree", "SortFreeLow", "NumQueuedArrays", "MaxArrayRate_COUT"):
        database[prefix + name] = integer()
    for name in ("IOSpeed", "RunTime"):
        database[prefix + name] = double()
    for name in ("FileNumber_Sync", "FileNumber_write"):
        database[prefix + name] = integer()
    database[f"{prefix}NDAttributesStatus"] = menu(
        (
            "Attributes file OK",
            "File not found",
            "XML syntax error",
            "Macro substitution",
        )
    )
    database[f"{prefix}AsynIO"] = menu(("Disconnected", "Connected"), 1)
    database[f"{prefix}EmptyFreeList"] = menu(("Done", "Empty"))
    database[f"{prefix}ProcessPlugin"] = menu(("Done", "Process"))
    database[f"{prefix}FlushNow"] = menu(("Done", "Flush"))


class Camera:
    """The ADBase camera at `prefix`: takes frames from `exposer` and hands them to `file_plugin`.

    `time_scale` multiplies exposures into wall time.
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
    ) -> None:
        self._exposer = exposer
        self._file_plugin = file_plugin
        self._worker = worker
        self._time_scale = time_scale
        self._shape_vu = shape_vu
        self._abort = asyncio.Event()
        self._acquiring = False
        ny, nx = shape_vu

        def pair(name: str, make: Callable[..., ChannelData], *args: object) -> ChannelData:
            return with_readback(database, prefix + name, make, *args)

        self._acquire = pair("Acquire", menu, ("Done", "Acquire"))
        self._acquire.on_put = self._acquire_put
        self._acquire_readback = database[f"{prefix}Acquire_RBV"]
        self._exposure = pair("AcquireTime", double, 1.0)
        self._period = pair("AcquirePeriod", double, 0.0)
        self._image_mode = pair("ImageMode", menu, ("Single", "Multiple", "Continuous"))
        self._number_of_images = pair("NumImages", integer, 1)
        self._array_callbacks = pair("ArrayCallbacks", menu, DISABLE_ENABLE, 1)
        self._array_counter = pair("ArrayCounter", integer)
        self._array_counter_readback = database[f"{prefix}ArrayCounter_RBV"]
        self._temperature = pair("Temperature", double, -50.0)
        self._images_counter = integer()
        self._state = menu(DETECTOR_STATES)
        self._status_message = long_string("Idle")
        self._time_remaining = double(units="s")
        _constants(
            database,
            prefix,
            {
                "NumImagesCounter_RBV": self._images_counter,
                "NumExposuresCounter_RBV": integer(),
                "DetectorState_RBV": self._state,
                "StatusMessage_RBV": self._status_message,
                "StringFromServer_RBV": long_string(),
                "StringToServer_RBV": long_string(),
                "TimeRemaining_RBV": self._time_remaining,
                "Manufacturer_RBV": string("Simulated"),
                "Model_RBV": string("Simulated soft X-ray CCD"),
                "SerialNumber_RBV": string("0"),
                "FirmwareVersion_RBV": string("1"),
                "SDKVersion_RBV": string("1"),
                "DriverVersion_RBV": string("3.4.0"),
                "ADCoreVersion_RBV": string("3.4.0"),
                "PortName_RBV": string(PORT),
                "MaxSizeX_RBV": integer(nx),
                "MaxSizeY_RBV": integer(ny),
                "ArraySizeX_RBV": integer(nx),
                "ArraySizeY_RBV": integer(ny),
                "ArraySizeZ_RBV": integer(0),
                "ArraySize_RBV": integer(2 * ny * nx, units="B"),
                "ArrayRate_RBV": double(units="Hz"),
                "DataType_RBV.DISA": integer(),
                "ShutterStatus_RBV": menu(("Closed", "Open"), 1),
                "ShutterStatusEPICS_RBV": menu(("Closed", "Open"), 1),
                "TemperatureActual": double(-50.0, units="C"),
                "PoolAllocBuffers": integer(),
                "PoolFreeBuffers": integer(),
                "PoolMaxBuffers": integer(),
                "PoolMaxMem": double(units="MiB"),
                "PoolUsedBuffers": integer(),
                "PoolUsedMem": double(units="MiB"),
            },
        )
        fixed: dict[str, ChannelData] = {
            "BinX": integer(1),
            "BinY": integer(1),
            "MinX": integer(0),
            "MinY": integer(0),
            "SizeX": integer(nx),
            "SizeY": integer(ny),
            "NumExposures": integer(1),
            "Gain": double(1.0),
            "DataType": menu(DATA_TYPES, 3),
            "ColorMode": menu(COLOR_MODES),
            "TriggerMode": menu(("Internal", "External")),
            "FrameType": menu(("Normal", "Background", "FlatField", "DblCorrelation")),
            "ReverseX": menu(NO_YES),
            "ReverseY": menu(NO_YES),
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
        database[f"{prefix}AsynIO"] = menu(("Disconnected", "Connected"), 1)
        database[f"{prefix}NDAttributesFile"] = long_string()

    async def _acquire_put(self, value: str) -> None:
        if value != "Acquire":
            self._abort.set()
            return
        if self._acquiring:
            return
        self._acquiring = True
        self._abort.clear()
        try:
            await self._run()
        finally:
            self._acquiring = False
            await post(self._time_remaining, 0.0)
            await post(self._state, 10 if self._abort.is_set() else 0)
            await post(self._acquire, 0)
            await post(self._acquire_readback, 0)

    async def _run(self) -> None:
        """Take the frames of one acquisition."""
        mode = str(self._image_mode.value)
        wanted = {"Single": 1, "Multiple": int(self._number_of_images.value), "Continuous": None}
        planned = wanted[mode]
        await post(self._images_counter, 0)
        await post(self._acquire_readback, 1)
        taken = 0
        while (planned is None or taken < planned) and not self._abort.is_set():
            await post(self._state, 1)
            exposure_s = max(float(self._exposure.value), 0.0)
            capturing = self._file_plugin.capturing
            index = self._file_plugin.next_index if capturing else None
            render = await self._exposer.begin(exposure_s, index)
            loop = asyncio.get_running_loop()
            rendering = loop.run_in_executor(self._worker, render)
            wait_s = max(exposure_s, float(self._period.value)) * self._time_scale
            await self._interruptible(wait_s)
            frame_vu = await rendering
            if self._abort.is_set():
                return
            taken += 1
            counter = int(self._array_counter_readback.value) + 1
            if self._array_callbacks.value == "Enable":
                await post(self._state, 4)
                await self._file_plugin.receive(frame_vu, counter)
            await post(self._array_counter, counter)
            await post(self._array_counter_readback, counter)
            await post(self._images_counter, taken)
            if mode == "Continuous":
                await asyncio.sleep(0)

    async def _interruptible(self, wait_s: float) -> None:
        """Wait, unless somebody puts Acquire back to 0."""
        if wait_s > 0:
            try:
                await asyncio.wait_for(self._abort.wait(), wait_s)
            except TimeoutError:
                return
