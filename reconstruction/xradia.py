"""Images and tilt series in the Xradia format (`.xrm`, `.txrm`), the microscope's own.

The container is an OLE2 compound file, read by `olefile`. What is known of its streams comes from
the public readers of the format (data-exchange/dxchange, ALBA-Synchrotron/MARTApp) and from files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import olefile
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import FileError

__all__ = ["XradiaHeader", "is_xradia", "read_xradia_header", "read_xradia_image"]

_DTYPES: dict[int, np.dtype[Any]] = {5: np.dtype("<u2"), 10: np.dtype("<f4")}
_NAME_BYTES = 25
_UNIT_BYTES = 15


@dataclass(frozen=True)
class XradiaHeader:
    """What an `.xrm` (one image) or `.txrm` (a tilt series) file says of its images.

    Arrays have one entry for each image; nan where the file does not say.
    """

    shape_tvu: tuple[int, int, int]
    dtype: np.dtype[Any]
    theta_deg: NDArray[np.float64]
    exposure_s: NDArray[np.float64]
    energy_ev: NDArray[np.float64]
    pixel_nm: float
    taken: tuple[str, ...]
    """Date and time of each image, as written in the file: month/day/year hour:minute:second."""
    position: dict[str, NDArray[np.float64]]
    """Readback of every axis, by the axis' name in the file: (images,), in `position_units`."""
    position_units: dict[str, str]


def is_xradia(path: Path) -> bool:
    """Return whether a file is an OLE2 container, as Xradia's are."""
    return Path(path).is_file() and bool(olefile.isOleFile(path))


def read_xradia_header(path: Path) -> XradiaHeader:
    """Read all but the images of an `.xrm` or `.txrm` file.

    Axes are found by their names, never by their place in the list.

    Raises `FileError` if the file is missing, no OLE2 container, or without images.
    """
    with _opened(path) as reader:
        return reader.header()


def read_xradia_image(path: Path, number: int = 0) -> NDArray[Any]:
    """Read one image [v, u] of an `.xrm` or `.txrm` file, the first has the number 0.

    Images are stored flipped up-down; they are returned upright, as MARTApp does.

    Raises `FileError` if the file is missing, no OLE2 container, or cut short.
    """
    with _opened(path) as reader:
        return reader.image(number)


@contextmanager
def _opened(path: Path) -> Iterator[_Reader]:
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: no such file")
    if not olefile.isOleFile(path):
        raise FileError(f"{path}: not an Xradia file (no OLE2 container)")
    try:
        with olefile.OleFileIO(path) as container:
            yield _Reader(path, container)
    except OSError as error:
        raise FileError(f"{path}: damaged Xradia file: {error}; copy it again") from error


class _Reader:
    """Reads streams of one open container."""

    def __init__(self, path: Path, container: olefile.OleFileIO) -> None:
        self._path = path
        self._container = container

    def _stream(self, name: str) -> bytes | None:
        if not self._container.exists(name):
            return None
        return bytes(self._container.openstream(name).read())

    def _integer(self, name: str) -> int:
        data = self._stream(name)
        if data is None or len(data) < 4:
            raise FileError(f"{self._path}: not an Xradia image: stream {name} is missing")
        return int.from_bytes(data[:4], "little")

    def _per_image(self, name: str, n: int) -> NDArray[np.float64]:
        """Return one number per image; a stream may carry more bytes, or one number for all."""
        data = self._stream(name)
        values = np.full(n, np.nan)
        if data is not None:
            known = np.frombuffer(data[: len(data) // 4 * 4], "<f4").astype(np.float64)
            if known.size >= n:
                values[:] = known[:n]
            elif known.size == 1:
                values[:] = known[0]
        return values

    def _strings(self, name: str, size: int) -> list[str]:
        data = self._stream(name) or b""
        parts = [data[i : i + size] for i in range(0, len(data) // size * size, size)]
        return [part.split(b"\0", 1)[0].decode("latin-1").strip() for part in parts]

    def _positions(self, n: int) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
        names = self._strings("PositionInfo/AxisNames", _NAME_BYTES)
        units = self._strings("PositionInfo/AxisUnits", _UNIT_BYTES)
        data = self._stream("PositionInfo/MotorPositions") or b""
        values = np.frombuffer(data[: len(data) // 4 * 4], "<f4").astype(np.float64)
        total = self._stream("PositionInfo/TotalAxis")
        axes = int.from_bytes(total[:4], "little") if total else len(names)
        if axes == 0 or values.size < n * axes or len(names) < axes:
            return {}, {}
        table = values[: n * axes].reshape(n, axes)
        named = [(i, name) for i, name in enumerate(names[:axes]) if name]
        return (
            {name: table[:, i].copy() for i, name in named},
            {name: units[i] if i < len(units) else "" for i, name in named},
        )

    def _dtype(self, name: str) -> np.dtype[Any]:
        code = self._integer(name)
        if code not in _DTYPES:
            raise FileError(
                f"{self._path}: pixel type {code} in stream {name}; known are 5 (16-bit counts) "
                "and 10 (32-bit floats)"
            )
        return _DTYPES[code]

    def image(self, number: int) -> NDArray[Any]:
        height = self._integer("ImageInfo/ImageHeight")
        width = self._integer("ImageInfo/ImageWidth")
        dtype = self._dtype("ImageInfo/DataType")
        name = f"ImageData{number // 100 + 1}/Image{number + 1}"  # a hundred images a folder
        data = self._stream(name)
        size = height * width * dtype.itemsize
        if data is None or len(data) < size:
            have = "missing" if data is None else f"{len(data)} bytes"
            raise FileError(
                f"{self._path}: stream {name} is {have}; expected {height} x {width} pixels of "
                f"{dtype.itemsize} bytes (was the measurement cut short?)"
            )
        stored = np.frombuffer(data[:size], dtype).reshape(height, width)
        return stored[::-1].astype(dtype.newbyteorder("="))

    def header(self) -> XradiaHeader:
        height = self._integer("ImageInfo/ImageHeight")
        width = self._integer("ImageInfo/ImageWidth")
        planned = self._integer("ImageInfo/NoOfImages")
        taken = self._stream("ImageInfo/ImagesTaken")
        n = min(planned, int.from_bytes(taken[:4], "little")) if taken else planned
        if n < 1:
            raise FileError(f"{self._path}: holds no image")
        dtype = self._dtype("ImageInfo/DataType")
        position, units = self._positions(n)
        energy_ev = next(
            (position[name] for name in ("Energyenc", "Energy") if name in position),
            self._per_image("ImageInfo/Energy", n),
        )
        if not np.all(energy_ev > 0):
            energy_ev = self._per_image("ImageInfo/Energy", n)
        pixel_um = self._per_image("ImageInfo/PixelSize", 1)[0]
        dates = self._stream("ImageInfo/Date") or b""
        size = len(dates) // max(planned, 1)
        return XradiaHeader(
            (n, height, width),
            dtype.newbyteorder("="),
            self._per_image("ImageInfo/Angles", n),
            self._per_image("ImageInfo/ExpTimes", n),
            energy_ev,
            float(pixel_um) * 1e3,
            tuple(
                dates[i * size : (i + 1) * size].split(b"\0", 1)[0].decode("latin-1").strip()
                for i in range(n)
            )
            if size
            else (),
            position,
            units,
        )
