"""Raw frames or aligned stacks as NXtomo, one entry per azimuth and helicity.

https://manual.nexusformat.org/classes/applications/NXtomo.html. `image_key` says what a frame is: 0
projection, 1 flat, 2 dark, 3 invalid. Azimuth and helicity have no place in the definition: they are
`sample/azimuth` (degree) and `sample/helicity` (+1 or -1). When each frame was taken is
`instrument/detector/start_time` (s after its attribute `start`), as NXdetector has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import (
    FileError,
    open_hdf5,
    read_array,
    replaced_when_complete,
)

__all__ = [
    "DARK",
    "FLAT",
    "INVALID",
    "PROJECTION",
    "StoredFrames",
    "TomoEntry",
    "holds_nxtomo",
    "read_nxtomo",
    "write_nxtomo",
]

PROJECTION, FLAT, DARK, INVALID = 0, 1, 2, 3


class Frames(Protocol):
    """A stack [frame, v, u] that gives one frame at a time: an array, or an open file's dataset."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Frames, rows, columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one frame."""


@dataclass(frozen=True)
class StoredFrames:
    """The stack [frame, v, u] of a dataset in an HDF5 file, read one frame at a time."""

    path: Path
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, index: int, /) -> NDArray[Any]:
        """Read one frame; raises `FileError` if that is not possible."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(index)
        with open_hdf5(self.path) as file:
            return np.asarray(file[self.dataset][index])


@dataclass(frozen=True)
class TomoEntry:
    """The frames of one azimuth and helicity, with darks and flats among them (None: not known)."""

    frames_tvu: Frames
    image_key: NDArray[np.int64]
    theta_deg: NDArray[np.float64]
    exposure_s: NDArray[np.float64] | None = None
    ring_current_ma: NDArray[np.float64] | None = None
    pixel_nm: float | None = None
    energy_ev: float | None = None
    phi_deg: float | None = None
    helicity: int | None = None
    time_s: NDArray[np.float64] | None = None
    """When each frame was taken, s since 1970-01-01 UTC."""
    saturation_counts: float | None = None
    sample_name: str = "sample"
    title: str = ""


def write_nxtomo(path: Path, entries: Mapping[str, TomoEntry]) -> None:
    """Write entries as NXtomo, whole or not at all; frames are copied one by one.

    Raises `FileError` if there is none, or frames and their angles do not fit.
    """
    if not entries:
        raise FileError(f"{path}: no entry to write")
    for name, entry in entries.items():
        n = entry.frames_tvu.shape[0]
        for what in ("image_key", "theta_deg", "exposure_s", "ring_current_ma", "time_s"):
            values = getattr(entry, what)
            if values is not None and np.shape(values) != (n,):
                raise FileError(
                    f"{path}: entry {name} has {n} frames and {what} of shape {np.shape(values)}"
                )
    size = sum(
        entry.frames_tvu.dtype.itemsize * prod(entry.frames_tvu.shape) for entry in entries.values()
    )
    with replaced_when_complete(path, size) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update({"NX_class": "NXroot", "default": next(iter(entries))})
        for name, entry in entries.items():
            _write_entry(file, name, entry)


def _group(parent: Any, name: str, nx_class: str) -> Any:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nx_class
    return group


def _value(group: Any, name: str, value: object, units: str | None = None) -> None:
    group[name] = value
    if units is not None:
        group[name].attrs["units"] = units


def _write_entry(file: Any, name: str, entry: TomoEntry) -> None:
    group = _group(file, name, "NXentry")
    group.attrs["default"] = "data"
    _value(group, "definition", "NXtomo")
    _value(group, "title", entry.title or name)
    instrument = _group(group, "instrument", "NXinstrument")
    source = _group(instrument, "SOURCE", "NXsource")
    _value(source, "type", "Synchrotron X-ray Source")
    _value(source, "name", "ALBA")
    _value(source, "probe", "x-ray")
    detector = _group(instrument, "detector", "NXdetector")
    n, height, width = entry.frames_tvu.shape
    data = detector.create_dataset(
        "data", (n, height, width), entry.frames_tvu.dtype, chunks=(1, height, width)
    )
    data.attrs["interpretation"] = "image"
    for i in range(n):
        data[i] = entry.frames_tvu[i]
    _value(detector, "image_key", np.asarray(entry.image_key, dtype=np.int64))
    if entry.exposure_s is not None:
        _value(detector, "count_time", np.asarray(entry.exposure_s, dtype=np.float64), "s")
    if entry.time_s is not None:
        _value(detector, "start_time", np.asarray(entry.time_s, dtype=np.float64), "s")
        detector["start_time"].attrs["start"] = _EPOCH
    if entry.saturation_counts is not None:
        _value(detector, "saturation_value", float(entry.saturation_counts))
    if entry.pixel_nm is not None:
        _value(detector, "x_pixel_size", entry.pixel_nm * 1e-9, "m")
        _value(detector, "y_pixel_size", entry.pixel_nm * 1e-9, "m")
    if entry.energy_ev is not None:
        beam = _group(instrument, "beam", "NXbeam")
        _value(beam, "incident_energy", entry.energy_ev * 1e-3, "keV")
    sample = _group(group, "sample", "NXsample")
    _value(sample, "name", entry.sample_name)
    _value(sample, "rotation_angle", np.asarray(entry.theta_deg, dtype=np.float64), "degree")
    if entry.phi_deg is not None:
        _value(sample, "azimuth", float(entry.phi_deg), "degree")
    if entry.helicity is not None:
        _value(sample, "helicity", int(entry.helicity))
    if entry.ring_current_ma is not None:
        control = _group(group, "control", "NXmonitor")
        _value(control, "data", np.asarray(entry.ring_current_ma, dtype=np.float64) * 1e-3, "A")
    plot = _group(group, "data", "NXdata")
    plot.attrs["signal"] = "data"
    plot.attrs["axes"] = ["rotation_angle", ".", "."]
    plot["data"] = h5py.SoftLink(f"/{name}/instrument/detector/data")
    plot["image_key"] = h5py.SoftLink(f"/{name}/instrument/detector/image_key")
    plot["rotation_angle"] = h5py.SoftLink(f"/{name}/sample/rotation_angle")


_EPOCH = "1970-01-01T00:00:00Z"
_PER_M = {"m": 1e9, "mm": 1e6, "um": 1e3, "µm": 1e3, "nm": 1.0}
_PER_KEV = {"kev": 1e3, "ev": 1.0}
_PER_A = {"a": 1e3, "ma": 1.0}
_PER_S = {"s": 1.0, "ms": 1e-3}
_PER_DEG = {
    "degree": 1.0,
    "degrees": 1.0,
    "deg": 1.0,
    "rad": 180 / np.pi,
    "radian": 180 / np.pi,
    "radians": 180 / np.pi,
}


def holds_nxtomo(file: Any) -> bool:
    """Return whether an open HDF5 file has an NXtomo entry."""
    return any(_is_entry(group) for group in file.values())


def _is_entry(group: Any) -> bool:
    definition = group.get("definition") if isinstance(group, h5py.Group) else None
    if (
        not isinstance(definition, h5py.Dataset)
        or h5py.check_string_dtype(definition.dtype) is None
    ):
        return False
    return str(np.asarray(definition.asstr()[()]).reshape(-1)[0]) == "NXtomo"


def read_nxtomo(path: Path) -> dict[str, TomoEntry]:
    """Read all NXtomo entries of a file, by name; frames stay in the file until they are asked for.

    Lengths, energies, currents, times and angles are taken with the file's units. Raises `FileError`
    if there is no such entry, or one without frames, keys or angles.
    """
    with open_hdf5(path) as file:
        entries = {
            name: _read_entry(Path(path), group) for name, group in file.items() if _is_entry(group)
        }
    if not entries:
        raise FileError(f"{path}: holds no NXtomo entry")
    return entries


def _read_entry(path: Path, group: Any) -> TomoEntry:
    where = f"{path}: entry {group.name.lstrip('/')}"
    detector, sample = group.get("instrument/detector"), group.get("sample")
    if detector is None or sample is None:
        raise FileError(f"{where} has no instrument/detector or no sample")
    data = detector.get("data")
    if not isinstance(data, h5py.Dataset) or data.ndim != 3 or data.dtype.kind not in "fiu":
        found = "missing" if data is None else f"of shape {getattr(data, 'shape', None)}"
        raise FileError(f"{where}: instrument/detector/data is {found}; expected numbers (n, v, u)")
    n = data.shape[0]

    def known(parent: Any, name: str, units: Mapping[str, float]) -> NDArray[np.float64] | None:
        if parent is None or name not in parent:
            return None
        values = read_array(path, parent, name, dtype=np.float64)
        unit = str(parent[name].attrs.get("units", next(iter(units))))
        if unit.lower() not in units:
            raise FileError(f"{where}: {name} in {unit!r}; known are {', '.join(units)}")
        scaled: NDArray[np.float64] = values * units[unit.lower()]
        return scaled

    def one(values: NDArray[np.float64] | None) -> float | None:
        return None if values is None or values.size == 0 else float(values.reshape(-1)[0])

    def each(name: str, values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        if values is None:
            return None
        if values.size not in (1, n):
            raise FileError(f"{where}: {name} has {values.size} values for {n} frames")
        return np.broadcast_to(values.reshape(-1), (n,)).copy()

    angle = known(sample, "rotation_angle", _PER_DEG)
    if angle is None or angle.shape != (n,):
        found = "missing" if angle is None else f"of shape {angle.shape}"
        raise FileError(f"{where}: sample/rotation_angle is {found}; expected ({n},)")
    image_key = read_array(path, detector, "image_key", shape=(n,), dtype=np.int64)
    helicity = one(known(sample, "helicity", {"1": 1.0, "": 1.0}))
    x_nm, y_nm = (one(known(detector, f"{axis}_pixel_size", _PER_M)) for axis in "xy")
    if x_nm is not None and y_nm is not None and not np.isclose(x_nm, y_nm, rtol=1e-3):
        raise FileError(f"{where}: pixels of {x_nm:g} x {y_nm:g} nm; expected squares")
    return TomoEntry(
        StoredFrames(path, data.name, data.shape, data.dtype),
        image_key,
        angle,
        each("count_time", known(detector, "count_time", _PER_S)),
        each("control/data", known(group.get("control"), "data", _PER_A)),
        x_nm,
        one(known(group.get("instrument/beam"), "incident_energy", _PER_KEV)),
        one(known(sample, "azimuth", _PER_DEG)),
        None if helicity is None else round(helicity),
        _times(where, detector, each("start_time", known(detector, "start_time", _PER_S))),
        one(known(detector, "saturation_value", {"1": 1.0, "": 1.0, "counts": 1.0})),
        sample["name"].asstr()[()] if "name" in sample else "sample",
        group["title"].asstr()[()] if "title" in group else "",
    )


def _times(
    where: str, detector: Any, after_s: NDArray[np.float64] | None
) -> NDArray[np.float64] | None:
    if after_s is None:
        return None
    start = str(detector["start_time"].attrs.get("start", _EPOCH))
    try:
        began = datetime.fromisoformat(start)
    except ValueError:
        raise FileError(f"{where}: start_time begins at {start!r}; expected ISO 8601") from None
    if began.tzinfo is None:
        began = began.replace(tzinfo=UTC)
    shifted: NDArray[np.float64] = after_s + began.timestamp()
    return shifted
