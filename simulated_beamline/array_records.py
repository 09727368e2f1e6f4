"""What a camera and a plug-in tell of their last array: the records of NDArrayBase.template."""

import asyncio
import time
from typing import Any

import numpy as np
from caproto import ChannelData

from mistral_txm.simulated_beamline.area_detector import (
    BAYER_PATTERNS,
    COLOR_MODES,
    DISABLE_ENABLE,
    NO_YES,
    VERSION,
    add_constants,
)
from mistral_txm.simulated_beamline.channels import (
    Database,
    double,
    integer,
    long_string,
    menu,
    post,
    string,
    with_readback,
)

EPICS_EPOCH_S = 631_152_000
"""1990-01-01 in seconds since 1970."""

DIMENSIONS = 10
"""ND_ARRAY_MAX_DIMS."""


class ArrayRate:
    """Arrays per second, from a counter, once a second as the calc record does."""

    def __init__(self, counter: ChannelData, rate_hz: ChannelData) -> None:
        self._counter = counter
        self._rate_hz = rate_hz
        self._counting: asyncio.Task[None] | None = None

    def count(self) -> None:
        """Publish the rate every second, until a second has passed without an array."""
        if self._counting is None or self._counting.done():
            self._counting = asyncio.get_running_loop().create_task(self._count())

    async def _count(self) -> None:
        while True:
            before = int(self._counter.value)
            await asyncio.sleep(1.0)
            arrays = int(self._counter.value) - before
            await post(self._rate_hz, float(max(arrays, 0)))
            if arrays <= 0:
                return


class ArrayRecords:
    """The records at `prefix` of an asyn port that hands out arrays, at first of `shape_vu`."""

    def __init__(
        self, database: Database, prefix: str, port: str, shape_vu: tuple[int, int] = (0, 0)
    ) -> None:
        ny, nx = shape_vu
        self._counter = with_readback(database, f"{prefix}ArrayCounter", integer)
        self.counter_readback = database[f"{prefix}ArrayCounter_RBV"]
        self.wait_for_plugins = database[f"{prefix}WaitForPlugins"] = menu(NO_YES)
        self._rate_hz = double(units="Hz")
        self._rate = ArrayRate(self.counter_readback, self._rate_hz)
        self.unique_id = integer()
        self._time_s = double(units="s")
        self._epics_s = integer()
        self._epics_ns = integer()
        self._size_x = integer(nx)
        self._size_y = integer(ny)
        self._size_bytes = integer(2 * ny * nx, units="B")
        self._sizes = [
            with_readback(database, f"{prefix}ArraySize{axis}", integer, size)
            for axis, size in enumerate((nx, ny, *[0] * (DIMENSIONS - 2)))
        ]
        self._size_readbacks = [
            database[f"{prefix}ArraySize{axis}_RBV"] for axis in range(DIMENSIONS)
        ]
        add_constants(
            database,
            prefix,
            {
                "ArrayRate_RBV": self._rate_hz,
                "UniqueId_RBV": self.unique_id,
                "TimeStamp_RBV": self._time_s,
                "EpicsTSSec_RBV": self._epics_s,
                "EpicsTSNsec_RBV": self._epics_ns,
                "ArraySizeX_RBV": self._size_x,
                "ArraySizeY_RBV": self._size_y,
                "ArraySizeZ_RBV": integer(),
                "ArraySize_RBV": self._size_bytes,
                "BayerPattern_RBV": menu(BAYER_PATTERNS),
                "Codec_RBV": string(),
                "CompressedSize_RBV": integer(),
                "PortName_RBV": string(port),
                "DriverVersion_RBV": string(VERSION),
                "ADCoreVersion_RBV": string(VERSION),
                "Manufacturer_RBV": string("Simulated"),
                "Model_RBV": string("Simulated soft X-ray CCD"),
                "SerialNumber_RBV": string("0"),
                "FirmwareVersion_RBV": string("1"),
                "SDKVersion_RBV": string("1"),
                **{
                    f"Pool{name}": integer()
                    for name in ("AllocBuffers", "FreeBuffers", "MaxBuffers", "UsedBuffers")
                },
                "PoolMaxMem": double(units="MiB"),
                "PoolUsedMem": double(units="MiB"),
            },
        )
        for axis in range(DIMENSIONS):
            with_readback(database, f"{prefix}Dim{axis}SA", integer)
        with_readback(database, f"{prefix}Dimensions", integer, 2)
        with_readback(database, f"{prefix}NDimensions", integer, 2)
        with_readback(database, f"{prefix}ColorMode", menu, COLOR_MODES)
        with_readback(database, f"{prefix}NumPreAllocBuffers", integer)
        self.callbacks = with_readback(database, f"{prefix}ArrayCallbacks", menu, DISABLE_ENABLE, 1)
        for name in ("NDAttributesFile", "NDAttributesMacros"):
            database[prefix + name] = long_string()
        database[f"{prefix}NDAttributesStatus"] = menu(
            (
                "Attributes file OK",
                "File not found",
                "XML syntax error",
                "Macro substitution error",
            )
        )
        database[f"{prefix}AsynIO"] = menu(("Disconnected", "Connected"), 1)
        database[f"{prefix}EmptyFreeList"] = menu(("Done", "Empty"))
        database[f"{prefix}PreAllocBuffers"] = menu(("Done", "Allocate"))
        database[f"{prefix}PoolPollStats"] = menu(("Done", "Poll"))

    async def describe(self, shape_vu: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Publish the size of an array [v, u]; x is u."""
        ny, nx = shape_vu
        for setpoint, readback, size in zip(
            self._sizes, self._size_readbacks, (nx, ny), strict=False
        ):
            await post(setpoint, size)
            await post(readback, size)
        await post(self._size_x, nx)
        await post(self._size_y, ny)
        await post(self._size_bytes, dtype.itemsize * ny * nx)

    async def stamp(self, unique_id: int) -> None:
        """Publish number and time of an array."""
        now_s = time.time()
        await post(self.unique_id, unique_id)
        await post(self._time_s, now_s - EPICS_EPOCH_S)
        await post(self._epics_s, int(now_s) - EPICS_EPOCH_S)
        await post(self._epics_ns, int(now_s % 1 * 1e9))

    async def count(self) -> None:
        """Count one array more."""
        counter = int(self.counter_readback.value) + 1
        await post(self._counter, counter)
        await post(self.counter_readback, counter)
        self._rate.count()
