"""The records of the file plug-in that clients may write and read, and that change nothing here."""

from mistral_txm.simulated_beamline.area_detector import CAMERA_PORT, NO_YES, add_constants
from mistral_txm.simulated_beamline.channels import (
    Database,
    double,
    integer,
    long_string,
    menu,
    string,
    with_readback,
)

_EXTRA_AXES = "XYN3456789"


def add_plugin_records(database: Database, prefix: str, shape_vu: tuple[int, int]) -> None:
    """Add them to `database`; `shape_vu` is the size of a chunk."""
    ny, nx = shape_vu
    integers = {
        "NDArrayAddress": 0,
        "DisorderedArrays": 0,
        "DroppedOutputArrays": 0,
        "NumThreads": 1,
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
        "JPEGQuality": 90,
        "SZipNumPixels": 16,
        "ZLevel": 6,
        **{f"ChunkSize{axis}": 1 for axis in range(2, 10)},
        **{f"ExtraDimSize{axis}": 1 for axis in _EXTRA_AXES},
        **{f"ExtraDimChunk{axis}": 1 for axis in _EXTRA_AXES if axis != "N"},
    }
    doubles = {
        "MinCallbackTime": 0.0,
        "MaxArrayRate": 0.0,
        "MaxByteRate": 0.0,
        "SortTime": 0.1,
        "FillValue": 0.0,
    }
    menus: dict[str, tuple[tuple[str, ...], int]] = {
        "SortMode": (("Unsorted", "Sorted"), 0),
        "DeleteDriverFile": (NO_YES, 0),
        "FileFormat": (("HDF5",), 0),
        "ReadFile": (("Done", "Read"), 0),
        "Compression": (("None", "N-bit", "szip", "zlib", "Blosc", "BSLZ4", "LZ4", "JPEG"), 0),
        "BloscCompressor": (("BloscLZ", "LZ4", "LZ4HC", "SNAPPY", "ZLIB", "ZSTD"), 0),
        "BloscShuffle": (("None", "Byte", "Bit"), 0),
        "ChunkSizeAuto": (NO_YES, 1),
        "DimAttDatasets": (NO_YES, 0),
        "PositionMode": (("Off", "On"), 0),
        "StoreAttr": (NO_YES, 1),
        "StorePerform": (NO_YES, 0),
    }
    texts = {
        "XMLFileName": "",
        **{f"PosIndexDim{axis}": "" for axis in _EXTRA_AXES},
        **{f"PosNameDim{axis}": "" for axis in _EXTRA_AXES},
    }
    for name, value in integers.items():
        with_readback(database, prefix + name, integer, value)
    for name, number in doubles.items():
        with_readback(database, prefix + name, double, number)
    for name, (choices, index) in menus.items():
        with_readback(database, prefix + name, menu, choices, index)
    for name, text in texts.items():
        with_readback(database, prefix + name, long_string, text)
    with_readback(database, f"{prefix}NDArrayPort", string, CAMERA_PORT)
    for name in ("QueueFreeLow", "QueueUseHIGH", "QueueUseHIHI"):
        database[prefix + name] = integer()
    for name in ("SortFree", "SortFreeLow", "NumQueuedArrays", "MaxArrayRate_COUT"):
        database[prefix + name] = integer()
    for name in ("IOSpeed", "RunTime"):
        database[prefix + name] = double()
    for name in ("FileNumber_Sync", "FileNumber_write"):
        database[prefix + name] = integer()
    database[f"{prefix}ProcessPlugin"] = menu(("Done", "Process"))
    database[f"{prefix}FlushNow"] = menu(("Done", "Flush"))
    add_constants(
        database,
        prefix,
        {
            "PluginType_RBV": string("NDFileHDF5"),
            "SWMRSupported_RBV": menu(("Not Supported", "Supported"), 1),
            "SWMRCbCounter_RBV": integer(),
            "MaxThreads_RBV": integer(1),
            "XMLErrorMsg_RBV": long_string(),
            "XMLValid_RBV": menu(NO_YES, 1),
            **{f"ExtraDimName{axis}_RBV": string() for axis in _EXTRA_AXES},
        },
    )
