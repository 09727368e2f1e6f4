"""areaDetector's names and values, as far as camera and file plug-in share them.

Who looks for something finds it in

- `camera`: acquisition, the records of ADBase.template; with `readout` (region, binning, data type)
  and `cooler` (temperature);
- `array_records`: what camera and plug-in tell of their last array, NDArrayBase.template;
- `file_plugin`: the modes of NDFileHDF5 and its queue; with `file_names` (how a file gets its name)
  and `plugin_records` (the records that nothing here depends on);
- `frame_file`: the HDF5 file itself.

Source: ADCore R3's documentation (ADDriver, NDArray, NDPluginDriver, NDPluginFile, NDFileHDF5) and
the record names in its templates. `Acquire`, `Capture` and `WriteFile` are busy records: a
put-callback completes when what was begun has ended.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from caproto import ChannelData
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.channels import Database
from mistral_txm.simulated_beamline.region import Region

Frame = NDArray[np.uint16]
"""What the chip hands out, [v, u]."""

Array = NDArray[Any]
"""A frame as the client wants it, of any of `DATA_TYPES`, [v, u]."""

DATA_TYPES: Mapping[str, np.dtype[Any]] = {
    "Int8": np.dtype(np.int8),
    "UInt8": np.dtype(np.uint8),
    "Int16": np.dtype(np.int16),
    "UInt16": np.dtype(np.uint16),
    "Int32": np.dtype(np.int32),
    "UInt32": np.dtype(np.uint32),
    "Int64": np.dtype(np.int64),
    "UInt64": np.dtype(np.uint64),
    "Float32": np.dtype(np.float32),
    "Float64": np.dtype(np.float64),
}
"""NDDataType_t, in order."""

COLOR_MODES = ("Mono", "Bayer", "RGB1", "RGB2", "RGB3", "YUV444", "YUV422", "YUV421")
BAYER_PATTERNS = ("RGGB", "GBRG", "GRBG", "BGGR")
NO_YES = ("No", "Yes")
DISABLE_ENABLE = ("Disable", "Enable")
CAMERA_PORT = "CCD"
FILE_PORT = "HDF1"
VERSION = "3.4.0"


class Exposer(Protocol):
    """What the camera asks for a frame."""

    async def begin(self, exposure_s: float, number: int, region: Region) -> Callable[[], Frame]:
        """Freeze the state of the beamline now; the result renders the frame, in another thread.

        Exposures of one state differ by their `number`.
        """

    async def end(self) -> Callable[[], Frame] | None:
        """Look again, now that the exposure is over or was cut short.

        The result renders the frame where the light has changed meanwhile; it is None otherwise.
        """

    async def captured(self, file: str, index: int) -> None:
        """Take note that the frame of the last exposure is in `file` (its final name) now."""


def add_constants(database: Database, prefix: str, channels: dict[str, ChannelData]) -> None:
    """Add channels that clients may only read."""
    for name, channel in channels.items():
        channel.read_only = True
        database[f"{prefix}{name}"] = channel
