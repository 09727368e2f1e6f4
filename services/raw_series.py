"""Frames of the facility's files as angles, as those of our own runs are: darks, flats and exposures by helicity."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import nan
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mistral_txm.devices.key import Key
from mistral_txm.reconstruction.files import FileError
from mistral_txm.reconstruction.plausible import checked_tilts_deg
from mistral_txm.services.angle_signals import AngleSignals, ProcessingError
from mistral_txm.services.exposures import Exposure, UnreadableExposure
from mistral_txm.services.processing import Processor
from mistral_txm.services.raw_frames import Purpose, RawFrame
from mistral_txm.services.series_exposures import Angle

T = TypeVar("T")

SAME_TILT_DEG = 0.2
"""Readbacks that lie closer together are of one tilt."""
SAME_ENERGY_EV = 0.5
"""What the monochromator may be off: the dichroism at an L3 edge changes within 1 eV."""
SAME_PIXEL = 1e-3
FEWEST_OF_REFERENCES = 2
"""Darks of an exposure time, and flats of a helicity, from which noise can be told."""


@dataclass(frozen=True)
class FileImage(Exposure):
    """An exposure of which a file of the facility tells; ``frame`` reads it."""

    frame: RawFrame

    def read(self) -> NDArray[np.uint16]:
        """Read the image ``[v, u]``, upright.

        Raises
        ------
        UnreadableExposure
            If it cannot be read, or is not what it was when the series was looked through.
        """
        try:
            image_vu: NDArray[np.uint16] = self.frame.read()
        except FileError as error:
            raise UnreadableExposure(self, str(error)) from error
        return image_vu


@dataclass(frozen=True)
class RawSeries:
    """The angles of all azimuths that a set of files holds, and what had to be left out, a line each."""

    angles: tuple[Angle, ...]
    pixel_nm: float
    saturation_counts: float
    notes: tuple[str, ...] = ()


def series_of(frames: Sequence[RawFrame], ring_current_ma: float | None = None) -> RawSeries:
    """Sort frames by azimuth, tilt and helicity.

    Parameters
    ----------
    frames
        Of one sample at one energy, in the order of the files.
    ring_current_ma
        Of the frames whose files do not say; None: each has to.

    Raises
    ------
    FileError
        If frames contradict each other, or say too little, or no tilt has both helicities.
    """
    samples = [one for one in frames if one.purpose is Purpose.SAMPLE]
    if not samples:
        raise FileError(
            f"{frames[0].path}: none of {len(frames)} frames is of the sample; expected images besides FF and BG"
        )
    _agree(frames)
    if any(one.time_s is None for one in frames):
        frames = [replace(one, time_s=0.0) for one in frames]
    notes: list[str] = []
    angles: list[Angle] = []
    for phi_deg, of_it in sorted(_grouped(frames, lambda one: one.phi_deg or 0.0).items()):
        checked_tilts_deg(
            f"{of_it[0].path} and {len(of_it) - 1} more: tilts",
            np.array([one.theta_deg for one in of_it if one.purpose is Purpose.SAMPLE]),
        )
        angles += _angles(phi_deg, of_it, frames, ring_current_ma, notes)
    if not angles:
        raise FileError(notes[0])
    pixel_nm = samples[0].pixel_nm
    if pixel_nm is None:
        raise FileError(
            f"{samples[0].where}: no pixel size; expected ImageInfo/PixelSize, metadata/pixel_size or x_pixel_size"
        )
    return RawSeries(tuple(angles), pixel_nm, min(one.full_scale for one in samples), tuple(notes))


def signals_of(series: RawSeries) -> tuple[list[AngleSignals], tuple[str, ...]]:
    """Return the signals of all angles that have them, and a line for each that has not.

    Raises
    ------
    ProcessingError
        If no angle has.
    FrameError
        If an image cannot be read.
    """
    processor = Processor(series.saturation_counts, series.pixel_nm)
    seen: dict[int, Path] = {}
    made: list[AngleSignals] = []
    notes: list[str] = []
    for angle in series.angles:
        _refuse_copies(angle, seen)
        try:
            made.append(processor.signals(angle))
        except ProcessingError as problem:
            notes.append(f"{problem}: left out")
            if len(notes) == len(series.angles):
                raise
    return made, tuple(notes)


def _angles(
    phi_deg: float,
    frames: Sequence[RawFrame],
    of_all: Sequence[RawFrame],
    ring_current_ma: float | None,
    notes: list[str],
) -> list[Angle]:
    """Make the angles of an azimuth; its own darks go before those of the other azimuths."""
    _refuse_mixtures(phi_deg, [one for one in frames if one.purpose is Purpose.SAMPLE])
    for one in frames:
        if one.helicity is None and one.purpose is not Purpose.DARK:
            raise FileError(
                f"{one.where}: no polarisation in the file nor in its name; expected a name such as "
                "20180301_film_-1_-55.0_3 (date, sample, polarisation, angle, repetition)"
            )
    dark_frames = [one for one in frames if one.purpose is Purpose.DARK] or [
        one for one in of_all if one.purpose is Purpose.DARK
    ]
    darks = _once(_exposures(phi_deg, 0.0, dark_frames, ring_current_ma))
    samples = [one for one in frames if one.purpose is Purpose.SAMPLE]
    _refuse_missing_references(phi_deg, frames, len(darks))
    groups = _flats_in_groups(frames)
    angles = []
    for theta_deg, of_tilt in _by_tilt(samples):
        by_helicity = _by_helicity(of_tilt, Purpose.SAMPLE)
        if len(by_helicity) == 1:
            notes.append(
                f"phi {phi_deg:g} deg, theta {theta_deg:g} deg: images of helicity {next(iter(by_helicity)):+d} "
                "alone, the dichroic signal needs both: left out"
            )
            continue
        exposures = {
            helicity: _exposures(phi_deg, theta_deg, of_it, ring_current_ma)
            for helicity, of_it in by_helicity.items()
        }
        flats = {
            helicity: _exposures(phi_deg, 0.0, of_it, ring_current_ma)
            for helicity, of_it in _by_helicity(_flats_about(groups, of_tilt), Purpose.FLAT).items()
        }
        angles.append(Angle(phi_deg, theta_deg, exposures, flats, darks, phi_deg))
    return angles


def _refuse_mixtures(phi_deg: float, samples: Sequence[RawFrame]) -> None:
    """Refuse images of two series as one: their names tell them apart, or say the same of two images."""
    names = _grouped((one for one in samples if one.sample), lambda one: one.sample)
    if len(names) > 1:
        first, second = list(names)[:2]
        raise FileError(
            f"{names[second][0].where}: of {second}, other images are of {first}; give --phi for the folder of each, "
            "or process each by itself"
        )
    seen: dict[tuple[object, ...], RawFrame] = {}
    for one in samples:
        if one.repeat is None:
            continue
        place = (one.nominal_deg, one.helicity, one.repeat, one.number)
        if place in seen:
            raise FileError(
                f"{one.where} and {seen[place].where}: both are repetition {one.repeat} of helicity "
                f"{one.helicity or 0:+d} at theta {one.nominal_deg:g} deg, phi {phi_deg:g} deg; of one azimuth?"
            )
        seen[place] = one


def _refuse_missing_references(phi_deg: float, frames: Sequence[RawFrame], darks: int) -> None:
    """Refuse at once what no angle of the azimuth could be made without."""
    samples, flats = (_by_helicity(frames, purpose) for purpose in (Purpose.SAMPLE, Purpose.FLAT))
    for helicity in (1, -1):
        if helicity not in samples:
            raise FileError(
                f"phi {phi_deg:g} deg: no image of helicity {helicity:+d}; the dichroic signal needs both helicities"
            )
        if (found := len(flats.get(helicity, ()))) < FEWEST_OF_REFERENCES:
            raise FileError(
                f"phi {phi_deg:g} deg: {found} flats of helicity {helicity:+d}; expected at least "
                f"{FEWEST_OF_REFERENCES}, files with _FF in the name or metadata/FF"
            )
    if darks < FEWEST_OF_REFERENCES:
        raise FileError(
            f"phi {phi_deg:g} deg: {darks} dark frames; expected at least {FEWEST_OF_REFERENCES} of each exposure "
            "time, files with _BG or _DF in the name"
        )


def _flats_in_groups(frames: Iterable[RawFrame]) -> list[list[RawFrame]]:
    """Return the flats in groups that were taken one after the other."""
    lit = [one for one in frames if one.purpose is not Purpose.DARK]
    lit.sort(key=lambda one: (one.time_s or 0.0, one.purpose is not Purpose.FLAT))
    return [
        list(group)
        for purpose, group in groupby(lit, key=lambda one: one.purpose)
        if purpose is Purpose.FLAT
    ]


def _flats_about(
    groups: Sequence[Sequence[RawFrame]], samples: Sequence[RawFrame]
) -> list[RawFrame]:
    """Return the flats last taken before images of the sample, and those taken next after them, as for our runs."""
    first_s = min(one.time_s or 0.0 for one in samples)
    last_s = max(one.time_s or 0.0 for one in samples)
    before = [group for group in groups if (group[0].time_s or 0.0) <= first_s]
    after = [group for group in groups if (group[0].time_s or 0.0) > last_s]
    return [one for group in (*before[-1:], *after[:1]) for one in group]


def _exposures(
    phi_deg: float, theta_deg: float, frames: Iterable[RawFrame], ring_current_ma: float | None
) -> tuple[FileImage, ...]:
    """Number the frames of one state in the order of their repetition, then of their time."""
    order = sorted(
        frames, key=lambda one: (-1 if one.repeat is None else one.repeat, one.time_s or 0.0)
    )
    made = []
    for number, one in enumerate(order):
        current_ma = one.ring_current_ma
        if current_ma is None or not current_ma > 0:
            current_ma = ring_current_ma
        if one.purpose is Purpose.DARK:
            current_ma = nan
        elif current_ma is None:
            said = "no" if one.ring_current_ma is None else f"{one.ring_current_ma:g} mA as"
            raise FileError(
                f"{one.where}: {said} ring current, which images are normalised by; expected machine_current (mA), or "
                "give --ring-current-ma, if it was constant"
            )
        helicity = 0 if one.purpose is Purpose.DARK else (one.helicity or 0)
        made.append(
            FileImage(
                run_uid="",
                stream=one.purpose.value,
                seq_num=number + 1,
                key=Key(phi_deg, theta_deg, helicity, number),
                theta_deg=one.theta_deg,
                polarization=helicity,
                path=one.path,
                dataset=one.dataset,
                frame_number=one.number,
                crc32=0,
                exposure_s=one.exposure_s,
                ring_current_ma=current_ma,
                saturated_fraction=nan,
                time=one.time_s or 0.0,
                frame=one,
            )
        )
    return tuple(made)


def _agree(frames: Sequence[RawFrame]) -> None:
    """Refuse frames that cannot be of one measurement."""
    first = frames[0]
    for one in frames:
        if one.shape_vu != first.shape_vu:
            raise FileError(
                f"{one.where}: image of {one.shape_vu} pixels, {first.where} has {first.shape_vu}; expected one "
                "field of view in all"
            )
    lit = [one for one in frames if one.purpose is not Purpose.DARK]
    for what, unit, values, tolerance in (
        ("energy", "eV", [one.energy_ev for one in lit], SAME_ENERGY_EV),
        ("pixel", "nm", [one.pixel_nm for one in lit], SAME_PIXEL * (lit[0].pixel_nm or 0.0)),
    ):
        known = [(value, one) for value, one in zip(values, lit, strict=True) if value is not None]
        if not known:
            continue
        usual = float(np.median([value for value, _ in known]))
        value, worst = max(known, key=lambda pair: abs(pair[0] - usual))
        if abs(value - usual) > tolerance:
            raise FileError(
                f"{worst.where}: {what} {value:g} {unit}, the others have {usual:g} {unit}; process each by itself"
            )
    if len({one.phi_deg is None for one in frames}) > 1:
        without = next(one for one in frames if one.phi_deg is None)
        raise FileError(f"{without.where}: no azimuth, unlike other files; give --phi")
    places = [(one.path.resolve(), one.dataset, one.number) for one in frames]
    if len(set(places)) < len(places):
        twice = next(one for one, at in zip(frames, places, strict=True) if places.count(at) > 1)
        raise FileError(f"{twice.path}: given twice; name each file once")


def _by_tilt(samples: Sequence[RawFrame]) -> list[tuple[float, list[RawFrame]]]:
    """Group images by the tilt in their names, or by their readbacks; the tilts ascend.

    Raises
    ------
    FileError
        If readbacks run into each other.
    """
    if all(one.nominal_deg is not None for one in samples):
        return sorted(_grouped(samples, lambda one: float(one.nominal_deg or 0.0)).items())
    ordered = sorted(samples, key=lambda one: one.theta_deg)
    groups = [[ordered[0]]]
    for one in ordered[1:]:
        if one.theta_deg - groups[-1][-1].theta_deg > SAME_TILT_DEG:
            groups.append([])
        groups[-1].append(one)
    for group in groups:
        low_deg, high_deg = group[0].theta_deg, group[-1].theta_deg
        if high_deg - low_deg > 2 * SAME_TILT_DEG:
            raise FileError(
                f"{group[0].where}: tilts of {low_deg:g} to {high_deg:g} deg lie too close together to be told apart; "
                "name the files date_sample_polarization_angle_repetition"
            )
    return [(round(float(np.mean([one.theta_deg for one in group])), 3), group) for group in groups]


def _by_helicity(frames: Iterable[RawFrame], purpose: Purpose) -> dict[int, list[RawFrame]]:
    return _grouped(
        (one for one in frames if one.purpose is purpose), lambda one: one.helicity or 0
    )


def _grouped(frames: Iterable[RawFrame], of: Callable[[RawFrame], T]) -> dict[T, list[RawFrame]]:
    found: dict[T, list[RawFrame]] = {}
    for one in frames:
        found.setdefault(of(one), []).append(one)
    return found


def _once(darks: Sequence[FileImage]) -> tuple[FileImage, ...]:
    """Leave out copies: a NXtomo entry of each helicity has the same darks."""
    found: dict[int, FileImage] = {}
    for one in darks:
        found.setdefault(zlib.crc32(np.ascontiguousarray(one.read()).tobytes()), one)
    return tuple(found.values())


def _refuse_copies(angle: Angle, seen: dict[int, Path]) -> None:
    """Refuse an image that is there under two names: noise never repeats itself."""
    for of_it in angle.exposures.values():
        for one in of_it:
            image_vu = one.read()
            if image_vu.min() == image_vu.max():
                continue  # dark or saturated throughout
            crc32 = zlib.crc32(np.ascontiguousarray(image_vu).tobytes())
            if crc32 in seen:
                raise FileError(
                    f"{one.path}: holds the same image as {seen[crc32]}; leave the copy out"
                )
            seen[crc32] = one.path
