"""Frames that are not of our own runs: what each file of the facility says of its images, before one is read."""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import FileError, open_hdf5
from mistral_txm.reconstruction.martapp import ImageHeader, read_image_header
from mistral_txm.reconstruction.nxtomo import (
    DARK,
    FLAT,
    PROJECTION,
    StoredFrames,
    TomoEntry,
    holds_nxtomo,
    read_nxtomo,
)
from mistral_txm.reconstruction.plausible import checked_energy_ev, checked_pixel_nm
from mistral_txm.reconstruction.xradia import (
    XradiaHeader,
    is_xradia,
    read_xradia_header,
    read_xradia_image,
)

LARGEST_DISAGREEMENT_DEG = 1.0
"""Between the tilt in a file's name and the one read back."""


class Kind(Enum):
    """What a file holds."""

    ALIGNED = "MARTApp's aligned stacks"
    NORMALIZED = "a TomoNormalized stack"
    IMAGE = "an image of MARTApp"
    NXTOMO = "NXtomo"
    XRADIA = "Xradia images"


def kind_of(path: Path) -> Kind:
    """Return what a file holds, by its contents.

    Raises
    ------
    FileError
        If it is none of the known kinds.
    """
    if is_xradia(path):
        return Kind.XRADIA
    with open_hdf5(path) as file:
        if "Angles" in file:
            return Kind.ALIGNED
        if "TomoNormalized" in file:
            return Kind.NORMALIZED
        if "data_1" in file:
            return Kind.IMAGE
        if holds_nxtomo(file):
            return Kind.NXTOMO
        found = ", ".join(sorted(map(str, file))) or "nothing"
    raise FileError(
        f"{path}: holds {found}; expected Angles or TomoNormalized or data_1 (MARTApp), or an NXtomo entry"
    )


class Purpose(Enum):
    """What a frame was taken for; the value is the stream of it in our own runs."""

    SAMPLE = "primary"
    FLAT = "flat"
    DARK = "dark"


@dataclass(frozen=True)
class RawFrame:
    """One frame in a file, and what is known of it (None: not known).

    ``nominal_deg``, ``repeat`` and ``sample`` are in the name that the beamline gives a file.
    """

    path: Path
    dataset: str
    """Where in an HDF5 file; empty in an Xradia file."""
    number: int
    shape_vu: tuple[int, int]
    full_scale: float
    """Counts at and above which a pixel is saturated."""
    purpose: Purpose
    theta_deg: float
    exposure_s: float
    helicity: int | None = None
    ring_current_ma: float | None = None
    energy_ev: float | None = None
    pixel_nm: float | None = None
    time_s: float | None = None
    phi_deg: float | None = None
    nominal_deg: float | None = None
    repeat: int | None = None
    sample: str = ""

    @property
    def where(self) -> str:
        """The file, and which of its frames."""
        return str(self.path) if self.dataset == "data_1" else f"{self.path} frame {self.number}"

    def read(self) -> NDArray[Any]:
        """Read the frame [v, u], upright; raises `FileError`."""
        if not self.dataset:
            return read_xradia_image(self.path, self.number)
        with open_hdf5(self.path) as file:
            stored = file[self.dataset]
            return np.asarray(stored[()] if stored.ndim == 2 else stored[self.number])


@dataclass(frozen=True)
class FileName:
    """What the beamline writes into a file's name: ``date_sample_polarization_angle_[FF|BG]_repetition``."""

    purpose: Purpose
    sample: str = ""
    """Date and sample."""
    helicity: int | None = None
    theta_deg: float | None = None
    repeat: int | None = None


_NAME = re.compile(
    r"^(?P<sample>.+?)_(?P<helicity>[+-]?1(\.0*)?)_(?P<angle>[+-]?\d+(\.\d*)?)(_(FF|BG|DF))?_(?P<repeat>\d+)$",
    re.IGNORECASE,
)
_PURPOSE = re.compile(r"_(FF|BG|DF)(?=_|$)", re.IGNORECASE)
_PURPOSES = {"FF": Purpose.FLAT, "BG": Purpose.DARK, "DF": Purpose.DARK}


def parse_name(stem: str) -> FileName:
    """Read a file's name, as far as it follows the beamline's pattern.

    >>> parse_name("20180301_film_-1_-55.0_12")
    FileName(purpose=<Purpose.SAMPLE: 'primary'>, sample='20180301_film', helicity=-1, theta_deg=-55.0, repeat=12)
    >>> parse_name("20180301_thin_film_1.0_0_FF_3")
    FileName(purpose=<Purpose.FLAT: 'flat'>, sample='20180301_thin_film', helicity=1, theta_deg=0.0, repeat=3)
    >>> parse_name("dark_BG")
    FileName(purpose=<Purpose.DARK: 'dark'>, sample='', helicity=None, theta_deg=None, repeat=None)
    """
    marks = _PURPOSE.findall(stem)
    purpose = _PURPOSES[marks[-1].upper()] if marks else Purpose.SAMPLE
    found = _NAME.match(stem)
    if found is None:
        return FileName(purpose)
    helicity = round(float(found["helicity"]))
    return FileName(purpose, found["sample"], helicity, float(found["angle"]), int(found["repeat"]))


def frames_in(path: Path, kind: Kind) -> list[RawFrame]:
    """Return the frames of a file with what it says of them, but for those that it calls invalid.

    Raises
    ------
    FileError
        If it cannot be read, contradicts its name, or holds numbers that cannot be in their unit.
    """
    if kind is Kind.NXTOMO:
        frames = [
            frame
            for name, entry in read_nxtomo(path).items()
            for frame in _of_entry(path, name, entry)
        ]
    elif kind is Kind.IMAGE:
        frames = [_named(_of_image(path, read_image_header(path)))]
    else:
        frames = [_named(frame) for frame in _of_xradia(path, read_xradia_header(path))]
    return [_checked(frame) for frame in frames]


def _of_image(path: Path, header: ImageHeader) -> RawFrame:
    azimuth_deg = header.metadata.get("azimuth")
    return RawFrame(
        path,
        "data_1",
        0,
        header.shape_vu,
        _full_scale(header.dtype),
        Purpose.FLAT if header.flat else Purpose.SAMPLE,
        header.theta_deg,
        header.exposure_s,
        _helicity(str(path), header.polarization),
        header.ring_current_ma,
        header.energy_ev,
        header.pixel_nm,
        _seconds(str(header.metadata.get("date_time_acquisition", ""))),
        float(azimuth_deg) if isinstance(azimuth_deg, (int, float)) else None,
    )


def _of_xradia(path: Path, header: XradiaHeader) -> list[RawFrame]:
    def axis(name: str, number: int) -> float | None:
        values = header.position.get(name)
        return None if values is None else float(values[number])

    return [
        RawFrame(
            path,
            "",
            number,
            header.shape_tvu[1:],
            _full_scale(header.dtype),
            Purpose.SAMPLE,
            float(header.theta_deg[number]),
            float(header.exposure_s[number]),
            _helicity(f"{path}: axis polarisation", axis("polarisation", number)),
            axis("machine_current", number),
            _known(header.energy_ev[number]),
            _known(header.pixel_nm),
            _seconds(header.taken[number]) if number < len(header.taken) else None,
        )
        for number in range(header.shape_tvu[0])
    ]


_PURPOSE_OF = {PROJECTION: Purpose.SAMPLE, FLAT: Purpose.FLAT, DARK: Purpose.DARK}


def _of_entry(path: Path, name: str, entry: TomoEntry) -> list[RawFrame]:
    assert isinstance(entry.frames_tvu, StoredFrames)
    if entry.exposure_s is None:
        raise FileError(
            f"{path}: entry {name} has no instrument/detector/count_time (s), which frames are normalised by"
        )
    height, width = entry.frames_tvu.shape[1:]
    full_scale = entry.saturation_counts or _full_scale(entry.frames_tvu.dtype)

    def each(values: NDArray[np.float64] | None, number: int) -> float | None:
        return None if values is None else float(values[number])

    return [
        RawFrame(
            path,
            entry.frames_tvu.dataset,
            number,
            (height, width),
            full_scale,
            _PURPOSE_OF[int(key)],
            float(entry.theta_deg[number]),
            float(entry.exposure_s[number]),
            _helicity(f"{path}: entry {name}: sample/helicity", entry.helicity),
            each(entry.ring_current_ma, number),
            entry.energy_ev,
            entry.pixel_nm,
            each(entry.time_s, number),
            entry.phi_deg,
        )
        for number, key in enumerate(entry.image_key)
        if int(key) in _PURPOSE_OF
    ]


def _named(frame: RawFrame) -> RawFrame:
    """Add what the file's name tells, if that does not contradict the file."""
    name = parse_name(frame.path.stem)
    purpose = frame.purpose if name.purpose is Purpose.SAMPLE else name.purpose
    if frame.helicity is not None and name.helicity not in (None, frame.helicity):
        raise FileError(
            f"{frame.path}: polarisation {frame.helicity:+d} in the file, {name.helicity:+d} in its name; correct "
            "the one that is wrong"
        )
    nominal = name.theta_deg
    if (
        purpose is Purpose.SAMPLE
        and nominal is not None
        and not abs(nominal - frame.theta_deg) <= LARGEST_DISAGREEMENT_DEG
    ):
        raise FileError(
            f"{frame.where}: tilt {frame.theta_deg:g} deg in the file, {nominal:g} deg in its name; expected the "
            f"same within {LARGEST_DISAGREEMENT_DEG:g} deg"
        )
    return replace(
        frame,
        purpose=purpose,
        helicity=name.helicity if frame.helicity is None else frame.helicity,
        nominal_deg=nominal,
        repeat=name.repeat,
        sample=name.sample,
    )


def _checked(frame: RawFrame) -> RawFrame:
    if not frame.exposure_s > 0:
        raise FileError(
            f"{frame.where}: exposure time {frame.exposure_s:g} s; expected a number above 0"
        )
    if not isfinite(frame.theta_deg) and frame.purpose is Purpose.SAMPLE:
        raise FileError(f"{frame.where}: has no tilt angle")
    if frame.energy_ev is not None:
        checked_energy_ev(f"{frame.where}: energy", frame.energy_ev)
    if frame.pixel_nm is not None:
        checked_pixel_nm(f"{frame.where}: pixel size", frame.pixel_nm)
    return frame


def _helicity(where: str, polarization: float | None) -> int | None:
    """Return a polarisation as helicity: +1 or -1, None where it is not noted."""
    if polarization is None or polarization != polarization:
        return None
    if abs(polarization) != 1:
        raise FileError(f"{where}: polarisation {polarization:g}; expected +1 or -1")
    return round(polarization)


def _known(value: float) -> float | None:
    return float(value) if isfinite(value) and value > 0 else None


def _full_scale(dtype: np.dtype[Any]) -> float:
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else float("inf")


_FORMATS = ("%m/%d/%y %H:%M:%S", "%m/%d/%Y %H:%M:%S")


def _seconds(text: str) -> float | None:
    """Return a date as seconds since 1970 UTC, None if it is none; Xradia writes month/day/year.

    >>> _seconds("11/09/15 18:19:21") == _seconds("2015-11-09T18:19:21")
    True
    """
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        pass
    for form in _FORMATS:
        try:
            return datetime.strptime(text[:19], form).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return None
