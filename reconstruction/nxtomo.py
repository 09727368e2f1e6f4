"""Raw frames or aligned stacks as NXtomo, one entry per azimuth and helicity.

https://manual.nexusformat.org/classes/applications/NXtomo.html. `image_key` says what a frame is: 0
projection, 1 flat, 2 dark, 3 invalid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

__all__ = ["PROJECTION", "TomoEntry", "read_nxtomo", "write_nxtomo"]

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
        for what in ("image_key", "theta_deg", "exposure_s", "ring_current_ma"):
            values = getattr(entry, what)
            if values is not None and np.shape(values) != (n,):
                raise FileError(
                    f"{path}: entry {name} has {n} frames and {what} of shape {np.shape(values)}"
                )
    with replaced_when_complete(path) as temporary, h5py.File(temporary, "w") as file:
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


_PER_M = {"m": 1e9, "mm": 1e6, "um": 1e3, "µm": 1e3, "nm": 1.0}
_PER_KEV = {"kev": 1e3, "ev": 1.0}
_PER_A = {"a": 1e3, "ma": 1.0}
_PER_S = {"s": 1.0, "ms": 1e-3}


def read_nxtomo(path: Path) -> dict[str, TomoEntry]:
    """Read all NXtomo entries of a file, by name; frames as they are, in memory.

    Lengths, energies, currents and times are taken with the file's units. Raises `FileError` if
    there is no such entry, or one without frames, keys or angles.
    """
    with open_hdf5(path) as file:
        entries = {
            name: _read_entry(Path(path), group)
            for name, group in file.items()
            if isinstance(group, h5py.Group)
            and "definition" in group
            and group["definition"].asstr()[()] == "NXtomo"
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
    dtype = data.dtype.type if isinstance(data, h5py.Dataset) else np.float32
    frames = read_array(path, detector, "data", shape=(None, None, None), dtype=dtype)
    n = frames.shape[0]

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

    def each(values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        return np.broadcast_to(values, (n,)).copy() if values is not None else None

    angle = read_array(path, sample, "rotation_angle", shape=(n,), dtype=np.float64)
    if str(sample["rotation_angle"].attrs.get("units", "degree")).startswith("rad"):
        angle = np.rad2deg(angle)
    helicity = one(known(sample, "helicity", {"1": 1.0}))
    return TomoEntry(
        frames,
        read_array(path, detector, "image_key", shape=(n,), dtype=np.int64),
        angle,
        each(known(detector, "count_time", _PER_S)),
        each(known(group.get("control"), "data", _PER_A)),
        one(known(detector, "x_pixel_size", _PER_M)),
        one(known(group.get("instrument/beam"), "incident_energy", _PER_KEV)),
        one(known(sample, "azimuth", {"degree": 1.0, "deg": 1.0})),
        None if helicity is None else round(helicity),
        sample["name"].asstr()[()] if "name" in sample else "sample",
        group["title"].asstr()[()] if "title" in group else "",
    )
