"""MARTApp's HDF5 files at its three stages, so that the same data can be processed there and here.

A. E. Herguedas-Alonso et al., J. Synchrotron Rad. 32 (2025),
https://doi.org/10.1107/S1600577525004485: one file per image (`read_image_header`), one per helicity
(`read_normalized`), one per tilt series before the reconstruction (`read_aligned`,
`write_aligned`). MARTApp's result is read by `volume_file.read_volume` and written by
`exports.export_volume`. Its pixel sizes are in um; angles in deg; the absorbance is A(+/-) = -ln
T(+/-).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import (
    FileError,
    open_hdf5,
    read_array,
    replaced_when_complete,
)
from mistral_txm.reconstruction.plausible import (
    checked_energy_ev,
    checked_pixel_nm,
    checked_tilts_deg,
)

__all__ = [
    "AlignedSeries",
    "ImageHeader",
    "NormalizedStack",
    "is_aligned",
    "read_aligned",
    "read_image_header",
    "read_normalized",
    "write_aligned",
    "write_image",
]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class AlignedSeries:
    """A tilt series one step before reconstruction: aligned stacks [view, v, u] of one azimuth.

    `dichroic_tvu` is S = (A(+) - A(-)) / 2 and `absorption_tvu` (A(+) + A(-)) / 2, both without
    unit. The other stacks are there if the file had them: the aligned A(+) and A(-) (MARTApp: T(+)
    and T(-)), and the same before alignment. `pixel_nm`, `phi_deg` and `std_t`, the standard deviation
    of a usual pixel of each view's S by photon noise, are our own processing's, None where the file
    does not say: MARTApp's do not.
    """

    theta_deg: Float64
    dichroic_tvu: Float32
    absorption_tvu: Float32
    positive_tvu: Float32 | None = None
    negative_tvu: Float32 | None = None
    original_positive_tvu: Float32 | None = None
    original_negative_tvu: Float32 | None = None
    pixel_nm: float | None = None
    phi_deg: float | None = None
    std_t: Float64 | None = None


_ATTRIBUTES = ("pixel_nm", "phi_deg")
_STD = "MagneticSignalStd"
_STACKS = {
    "dichroic_tvu": "MagneticSignal2DAligned",
    "absorption_tvu": "Absorption2DAligned",
    "positive_tvu": "2DAlignedPositiveStack",
    "negative_tvu": "2DAlignedNegativeStack",
    "original_positive_tvu": "OriginalPositiveStack",
    "original_negative_tvu": "OriginalNegativeStack",
}
_TILT_ALIGNED = {
    "dichroic_tvu": "MagneticSignalTiltAligned",
    "absorption_tvu": "AbsorptionTiltAligned",
}


def is_aligned(path: Path) -> bool:
    """Return whether a file is MARTApp's before reconstruction: HDF5 with `Angles` at its root."""
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return "Angles" in file


def read_aligned(path: Path) -> AlignedSeries:
    """Read MARTApp's file before reconstruction: `Angles` {N} (deg) and stacks {N, H, W}.

    `MagneticSignal2DAligned` and `Absorption2DAligned` are needed; where the file also has
    `MagneticSignalTiltAligned` and `AbsorptionTiltAligned`, MARTApp's later alignment of the tilts, these are
    taken instead. The other stacks are passed on as they are: MARTApp keeps transmittances in them, so the
    signals are not made from them.

    NaN marks a pixel that says nothing, as our own processing writes them, with `MagneticSignalStd` {N}, the
    standard deviation of each view. Raises `FileError` for a missing or wrong file, dataset, shape or value (Inf,
    or a standard deviation that is not above zero).
    """
    with open_hdf5(path) as file:
        theta_deg = read_array(path, file, "Angles", shape=(None,), dtype=np.float64)
        n = theta_deg.shape[0]
        if str(file["Angles"].attrs.get("units", "degrees")).startswith("rad"):
            theta_deg = np.rad2deg(theta_deg)
        checked_tilts_deg(f"{path}: dataset Angles", theta_deg)
        tilt_aligned = all(name in file for name in _TILT_ALIGNED.values())
        names = _STACKS | _TILT_ALIGNED if tilt_aligned else _STACKS
        stacks: dict[str, Float32] = {}
        shape: tuple[int | None, ...] = (n, None, None)
        for name, dataset in names.items():
            if name in _TILT_ALIGNED:
                stacks[name] = read_array(path, file, dataset, shape=shape, masked=True)
                shape = stacks[name].shape
            elif dataset in file:
                # before the last alignment images may be larger than what was kept
                stacks[name] = read_array(path, file, dataset, shape=(n, None, None), masked=True)
        known = {name: float(file.attrs[name]) for name in _ATTRIBUTES if name in file.attrs}
        std_t = None
        if _STD in file:
            std_t = read_array(path, file, _STD, shape=(n,), dtype=np.float64)
            if not (std_t > 0).all():
                raise FileError(
                    f"{path}: dataset {_STD} holds {std_t.min():g}; expected standard deviations above zero"
                )
    return AlignedSeries(
        theta_deg,
        stacks["dichroic_tvu"],
        stacks["absorption_tvu"],
        stacks.get("positive_tvu"),
        stacks.get("negative_tvu"),
        stacks.get("original_positive_tvu"),
        stacks.get("original_negative_tvu"),
        known.get("pixel_nm"),
        known.get("phi_deg"),
        std_t,
    )


def write_aligned(path: Path, series: AlignedSeries) -> None:
    """Write a tilt series as MARTApp's file before reconstruction, whole or not at all."""
    shape = series.dichroic_tvu.shape
    if series.theta_deg.ndim != 1 or len(shape) != 3 or shape[0] != series.theta_deg.shape[0]:
        raise FileError(
            f"{path}: {series.theta_deg.shape} angles and a dichroic stack of shape {shape} do not "
            "belong together; expected (n,) and (n, v, u)"
        )
    if series.absorption_tvu.shape != shape:
        raise FileError(
            f"{path}: absorption stack of shape {series.absorption_tvu.shape}; expected {shape}"
        )
    if series.std_t is not None and series.std_t.shape != series.theta_deg.shape:
        raise FileError(
            f"{path}: standard deviations of shape {series.std_t.shape}; expected one per view, "
            f"{series.theta_deg.shape}"
        )
    stacks = [getattr(series, name) for name in _STACKS]
    size = sum(4 * stack.size for stack in stacks if stack is not None)
    with replaced_when_complete(path, size) as temporary, h5py.File(temporary, "w") as file:
        angles = file.create_dataset("Angles", data=np.asarray(series.theta_deg, dtype=np.float64))
        angles.attrs["units"] = "degrees"
        for name, dataset in _STACKS.items():
            stack = getattr(series, name)
            if stack is not None:
                _write_stack(file, dataset, stack, np.float32)
        if series.std_t is not None:
            file.create_dataset(_STD, data=np.asarray(series.std_t, dtype=np.float64))
        for name in _ATTRIBUTES:
            if getattr(series, name) is not None:
                file.attrs[name] = float(getattr(series, name))


def _write_stack(group: Any, name: str, stack_tvu: NDArray[Any], dtype: type[np.generic]) -> None:
    # One view a chunk, and no compression: the program that reads it may have no filter for it.
    chunk = (1, *stack_tvu.shape[1:])
    group.create_dataset(name, data=np.asarray(stack_tvu, dtype=dtype), chunks=chunk)


@dataclass(frozen=True)
class NormalizedStack:
    """The exposures of one helicity as transmittance: frames [exposure, v, u], not yet averaged."""

    transmittance_tvu: Float32
    theta_deg: Float64
    exposure_s: Float64
    ring_current_ma: Float64
    energy_ev: Float64
    polarization: float
    """As the file says: +1 or -1 at MARTApp; nan if it does not say."""
    pixel_nm: float
    """Effective pixel; nan if the file does not say."""


def read_normalized(path: Path) -> NormalizedStack:
    """Read MARTApp's file of one helicity: the group `TomoNormalized` with a stack {N, H, W}.

    Raises `FileError` for a missing or wrong file, dataset, shape or value.
    """
    with open_hdf5(path) as file:
        group = file.get("TomoNormalized")
        if not isinstance(group, h5py.Group):
            raise FileError(
                f"{path}: group TomoNormalized is missing (found: {', '.join(sorted(map(str, file)))})"
            )
        stack = read_array(path, group, "TomoNormalized", shape=(None, None, None), masked=True)
        n = stack.shape[0]

        def per_view(name: str) -> Float64:
            return read_array(path, group, name, shape=(n,), dtype=np.float64)

        def one(name: str) -> float:
            if name not in group:
                return float("nan")
            values = np.unique(read_array(path, group, name, dtype=np.float64))
            if values.size != 1:
                raise FileError(
                    f"{path}: dataset TomoNormalized/{name} holds {values.size} different values; "
                    "expected one"
                )
            return float(values[0])

        theta_deg = per_view("rotation_angle")
        if str(group["rotation_angle"].attrs.get("units", "degrees")).startswith("rad"):
            theta_deg = np.rad2deg(theta_deg)
        checked_tilts_deg(f"{path}: dataset TomoNormalized/rotation_angle", theta_deg)
        energy_ev = per_view("energy")
        for energy in np.unique(energy_ev):
            checked_energy_ev(f"{path}: dataset TomoNormalized/energy", float(energy))
        pixel_um = one("x_pixel_size")
        if not np.isnan(pixel_um):
            checked_pixel_nm(f"{path}: dataset TomoNormalized/x_pixel_size", pixel_um * 1e3)
        if "y_pixel_size" in group and not np.isclose(one("y_pixel_size"), pixel_um, rtol=1e-3):
            raise FileError(
                f"{path}: pixels of {pixel_um:g} x {one('y_pixel_size'):g} um; expected squares"
            )
        return NormalizedStack(
            stack,
            theta_deg,
            per_view("ExpTimes"),
            per_view("Currents"),
            energy_ev,
            one("polarisation"),
            pixel_um * 1e3,
        )


@dataclass(frozen=True)
class ImageHeader:
    """What MARTApp's file of one image says of it (None: not noted)."""

    shape_vu: tuple[int, int]
    dtype: np.dtype[Any]
    theta_deg: float
    exposure_s: float
    ring_current_ma: float | None
    energy_ev: float | None
    polarization: float | None
    pixel_nm: float | None
    flat: bool
    metadata: dict[str, float | str | bool] = field(default_factory=dict)
    """All scalars of the file's `metadata` group, under its names and in its units."""


def read_image_header(path: Path) -> ImageHeader:
    """Read all but the image of MARTApp's file of one image: `data_1` {H, W} and scalars in `metadata`.

    `metadata/angle` and `metadata/exposure_time` are needed. Raises `FileError` if they are missing, or the
    image is not as `metadata` says.
    """
    with open_hdf5(path) as file:
        metadata: dict[str, float | str | bool] = {}
        group = file.get("metadata")
        if not isinstance(group, h5py.Group):
            raise FileError(
                f"{path}: group metadata is missing (found: {', '.join(sorted(map(str, file)))})"
            )
        for name, dataset in group.items():
            if isinstance(dataset, h5py.Dataset) and dataset.size == 1:
                value = np.asarray(dataset[()]).reshape(-1)[0]
                if isinstance(value, bytes):
                    metadata[name] = value.decode(errors="replace")
                elif isinstance(value, (str, np.str_)):
                    metadata[name] = str(value)
                elif isinstance(value, np.bool_):
                    metadata[name] = bool(value)
                else:
                    metadata[name] = float(value)
        counts = file.get("data_1")
        if (
            not isinstance(counts, h5py.Dataset)
            or counts.ndim != 2
            or counts.dtype.kind not in "fiu"
        ):
            found = f"of shape {counts.shape}" if isinstance(counts, h5py.Dataset) else "missing"
            raise FileError(f"{path}: dataset data_1 is {found}; expected numbers (v, u)")
        height, width = counts.shape
        dtype = counts.dtype
        units = str(group["angle"].attrs.get("units", "degrees")) if "angle" in group else ""

    def number(name: str) -> float | None:
        value = metadata.get(name)
        return float(value) if isinstance(value, (int, float)) else None

    def needed(name: str) -> float:
        value = number(name)
        if value is None:
            raise FileError(f"{path}: metadata/{name} is missing or no number")
        return value

    noted = tuple(number(name) for name in ("image_height", "image_width"))
    if None not in noted and noted != (height, width):
        raise FileError(
            f"{path}: dataset data_1 has shape {(height, width)}, but metadata/image_height and image_width say "
            f"({noted[0]:g}, {noted[1]:g}); is it transposed?"
        )
    theta_deg = needed("angle")
    pixel_um = number("pixel_size")
    return ImageHeader(
        (height, width),
        dtype,
        float(np.rad2deg(theta_deg)) if units.startswith("rad") else theta_deg,
        needed("exposure_time"),
        number("machine_current"),
        number("energy"),
        number("polarisation"),
        None if pixel_um is None else pixel_um * 1e3,
        bool(metadata.get("FF", False)),
        metadata,
    )


def write_image(path: Path, image: ImageHeader, counts_vu: NDArray[Any]) -> None:
    """Write one exposure as MARTApp does, whole or not at all."""
    height, width = counts_vu.shape
    pixel_um = None if image.pixel_nm is None else image.pixel_nm * 1e-3
    metadata: dict[str, tuple[float | str | bool | None, str]] = {
        **{name: (value, "") for name, value in image.metadata.items()},
        "FF": (image.flat, ""),
        "angle": (image.theta_deg, "degrees"),
        "data_type": (str(counts_vu.dtype), ""),
        "energy": (image.energy_ev, "eV"),
        "exposure_time": (image.exposure_s, "s"),
        "image_height": (height, "pixels"),
        "image_width": (width, "pixels"),
        "machine_current": (image.ring_current_ma, "mA"),
        "output_file": (Path(path).name, ""),
        "pixel_size": (pixel_um, "um"),
        "polarisation": (image.polarization, ""),
    }
    with replaced_when_complete(path) as temporary, h5py.File(temporary, "w") as file:
        data = file.create_dataset("data_1", data=counts_vu)
        data.attrs.update({"step": 1, "dataset": "data_1", "description": "raw data"})
        file["data"] = h5py.SoftLink("data_1")
        group = file.create_group("metadata")
        for name, (value, units) in sorted(metadata.items()):
            if value is not None:
                group[name] = value
                if units:
                    group[name].attrs["units"] = units
