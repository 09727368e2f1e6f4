"""What of the chip is read out, and as what: region, binning, mirroring, data type."""

from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from mistral_txm.simulated_beamline.area_detector import DATA_TYPES, NO_YES, Array, add_constants
from mistral_txm.simulated_beamline.array_records import ArrayRecords
from mistral_txm.simulated_beamline.channels import Database, integer, menu, post, with_readback
from mistral_txm.simulated_beamline.region import Region

Counts = NDArray[np.unsignedinteger]

REGION_RECORDS = ("MinX", "MinY", "SizeX", "SizeY", "BinX", "BinY")
"""The records of a `Region`, in the order of its fields."""


def clipped(wanted: Region, shape_vu: tuple[int, int]) -> Region:
    """Return the nearest region that a chip of `shape_vu` has.

    The first pixel comes first, then the size that fits behind it, then the bin that fits into it.

    >>> clipped(Region(200, -5, 100, 0, 0, 3), (256, 256))
    Region(min_x=200, min_y=0, size_x=56, size_y=1, bin_x=1, bin_y=1)
    """
    ny, nx = shape_vu
    min_x, min_y = _within(0, wanted.min_x, nx - 1), _within(0, wanted.min_y, ny - 1)
    size_x, size_y = _within(1, wanted.size_x, nx - min_x), _within(1, wanted.size_y, ny - min_y)
    bin_x, bin_y = _within(1, wanted.bin_x, size_x), _within(1, wanted.bin_y, size_y)
    return Region(min_x, min_y, size_x, size_y, bin_x, bin_y)


def _within(low: int, wanted: int, high: int) -> int:
    return min(max(wanted, low), high)


def converted(counts_vu: Counts, data_type: str) -> Array:
    """Return counts as one of `DATA_TYPES`; more than an integer holds is its largest value.

    >>> converted(np.array([[7, 300]], np.uint16), "UInt8")
    array([[  7, 255]], dtype=uint8)
    """
    dtype = DATA_TYPES[data_type]
    if dtype.kind in "iu":
        largest = min(np.iinfo(dtype).max, np.iinfo(counts_vu.dtype).max)
        counts_vu = np.minimum(counts_vu, counts_vu.dtype.type(largest))
    return counts_vu.astype(dtype, copy=False)


class Readout:
    """The records of ADBase.template that say what is read out of a chip of `shape_vu`.

    The readbacks show what became of a put that the chip does not have; `arrays` tells the size of
    the next array.
    """

    def __init__(
        self, database: Database, prefix: str, shape_vu: tuple[int, int], arrays: ArrayRecords
    ) -> None:
        self._shape_vu = shape_vu
        self._arrays = arrays
        ny, nx = shape_vu
        full = Region(0, 0, nx, ny)
        self._wanted = [
            with_readback(database, prefix + name, integer, value)
            for name, value in zip(REGION_RECORDS, astuple(full), strict=True)
        ]
        self._actual = [database[f"{prefix}{name}_RBV"] for name in REGION_RECORDS]
        self._data_type = with_readback(database, f"{prefix}DataType", menu, tuple(DATA_TYPES), 3)
        self._data_type_readback = database[f"{prefix}DataType_RBV"]
        for setpoint in (*self._wanted, self._data_type):
            setpoint.on_put = self._settle
        self._reverse_x = with_readback(database, f"{prefix}ReverseX", menu, NO_YES)
        self._reverse_y = with_readback(database, f"{prefix}ReverseY", menu, NO_YES)
        add_constants(
            database,
            prefix,
            {
                "MaxSizeX_RBV": integer(nx),
                "MaxSizeY_RBV": integer(ny),
                "DataType_RBV.DISA": integer(),
            },
        )

    @property
    def region(self) -> Region:
        """The region that the next exposure reads out."""
        return clipped(Region(*(int(each.value) for each in self._wanted)), self._shape_vu)

    def deliver(self, counts_vu: Counts) -> Array:
        """Mirror and convert what came from the chip as the client wants it."""
        if self._reverse_x.value == "Yes":
            counts_vu = counts_vu[:, ::-1]
        if self._reverse_y.value == "Yes":
            counts_vu = counts_vu[::-1]
        return np.ascontiguousarray(converted(counts_vu, str(self._data_type.value)))

    async def _settle(self, _value: object) -> None:
        region = self.region
        for readback, number in zip(self._actual, astuple(region), strict=True):
            await post(readback, number)
        await post(self._data_type_readback, self._data_type.value)
        dtype = DATA_TYPES[str(self._data_type.value)]
        await self._arrays.describe(region.shape_vu, dtype)
