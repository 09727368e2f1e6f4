"""The measurement as a value: what is exposed, in which order, before anything moves."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mistral_txm.devices.configuration import Configuration, Strict
from mistral_txm.devices.key import Key


def _tuples(value: object) -> object:
    """TOML and JSON have lists where a value that does not change has tuples."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value


_Tuples = BeforeValidator(_tuples)
_Seconds = Annotated[float, Field(gt=0, le=600)]
_Count = Annotated[int, Field(ge=1, le=1000)]


class Exposures(Strict):
    """How each angle is exposed whose absolute tilt is at most `up_to_deg`."""

    up_to_deg: Annotated[float, Field(ge=0, le=90)]
    exposure_s: _Seconds
    repeats: _Count


class Flats(Strict):
    """Exposures of the open beam, for each helicity, before the series and perhaps after it."""

    exposure_s: _Seconds
    repeats: _Count
    theta_deg: Annotated[float, Field(ge=-90, le=90)] = 0.0
    at_end: bool = False


class Darks(Strict):
    """Exposures with the shutter closed, `repeats` for each exposure time that is used."""

    repeats: _Count


class Sample(Strict):
    """What is measured, with lengths in nm from the middle of the film.

    `layers_nm` are its magnetic layers; `surfaces_nm` its lower and upper surface, membrane included,
    on which fiducials lie: they tell where the middle of the film is.
    """

    name: Annotated[str, Field(min_length=1)]
    layers_nm: Annotated[tuple[tuple[float, float], ...], _Tuples] | None = None
    surfaces_nm: Annotated[tuple[float, float], _Tuples] | None = None

    @model_validator(mode="after")
    def _layers_have_thickness(self) -> Self:
        for low_nm, high_nm in self.layers_nm or ():
            if not low_nm < high_nm:
                raise ValueError(f"layers_nm: [{low_nm}, {high_nm}]: expected the lower end first")
        if self.surfaces_nm is not None and not self.surfaces_nm[0] < self.surfaces_nm[1]:
            raise ValueError(f"surfaces_nm: {list(self.surfaces_nm)}: expected the lower one first")
        return self


@dataclass(frozen=True)
class Step:
    """Exposures that belong together: of one state of the beamline, into one file."""

    stream: Literal["dark", "flat", "primary"]
    phi_deg: float
    theta_deg: float
    helicity: int
    exposure_s: float
    repeats: tuple[int, ...]

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the exposures, in order."""
        return tuple(
            Key(self.phi_deg, self.theta_deg, self.helicity, repeat) for repeat in self.repeats
        )

    @property
    def file_name(self) -> str:
        """A name that says what is in the file.

        >>> Step("primary", 102.0, -55.0, -1, 20.0, (0, 1)).file_name
        'phi_102_theta_-55_minus'
        >>> Step("dark", 0.0, 0.0, 0, 8.5, (0,)).file_name
        'phi_0_dark_8.5s'
        """
        phi = f"phi_{self.phi_deg:g}"
        if self.stream == "dark":
            return f"{phi}_dark_{self.exposure_s:g}s"
        side = "plus" if self.helicity > 0 else "minus"
        if self.stream == "flat":
            return f"{phi}_flat_{side}"
        return f"{phi}_theta_{self.theta_deg:g}_{side}"


@dataclass(frozen=True)
class Estimate:
    """What a measurement takes: time with waits and readout, frames of all kinds, bytes on disk."""

    duration_s: float
    exposure_s: float
    frames: int
    bytes: int
    helicity_changes: int


class Measurement(Strict):
    """A vector tomography: one tilt series per azimuth, both helicities at each angle.

    >>> measurement = small()
    >>> len(measurement.angles_deg), len(measurement.planned_keys())
    (23, 276)
    >>> Measurement.from_dict(measurement.to_dict()) == measurement
    True
    """

    sample: Sample
    angles_deg: Annotated[tuple[float, ...], _Tuples]
    azimuths_deg: Annotated[tuple[float, ...], _Tuples] = (0.0, 102.0)
    exposures: Annotated[tuple[Exposures, ...], _Tuples]
    flats: Flats
    darks: Darks
    first_helicity: Literal[1, -1] = 1
    energy_ev: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.angles_deg or not self.azimuths_deg:
            raise ValueError("angles_deg and azimuths_deg: expected at least one each")
        if any(
            low >= high for low, high in zip(self.angles_deg, self.angles_deg[1:], strict=False)
        ):
            raise ValueError("angles_deg: expected ascending order; theta is approached from below")
        if max(map(abs, self.angles_deg)) >= 90:
            raise ValueError("angles_deg: expected tilts between -90 and 90 deg")
        if len(set(self.azimuths_deg)) < len(self.azimuths_deg):
            raise ValueError("azimuths_deg: expected each azimuth once")
        limits = [each.up_to_deg for each in self.exposures]
        if not limits or limits != sorted(set(limits)):
            raise ValueError("exposures: expected ascending up_to_deg")
        if max(map(abs, self.angles_deg)) > limits[-1]:
            raise ValueError(
                f"exposures: the last up_to_deg = {limits[-1]} does not reach the largest tilt, "
                f"{max(map(abs, self.angles_deg))} deg"
            )
        return self

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Measurement":
        """Make a measurement from what `to_dict` returned, or a TOML file holds.

        Raises
        ------
        ValueError
            If something is unknown, missing or out of range.
        """
        return cls.model_validate(value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists, numbers and texts, for documents and files."""
        return self.model_dump(mode="json", exclude_none=True)

    def exposures_at(self, theta_deg: float) -> Exposures:
        """Return how an angle is exposed.

        >>> paper().exposures_at(-44.0).repeats, paper().exposures_at(45.0).exposure_s
        (20, 20.0)
        """
        return next(each for each in self.exposures if abs(theta_deg) <= each.up_to_deg)

    def helicities_at(self, index: int) -> tuple[int, int]:
        """Return the order of the helicities at the angle of that index: + -, then - +, and so on.

        The helicity changes once per angle, and a linear drift cancels over two angles.
        """
        first = self.first_helicity if index % 2 == 0 else -self.first_helicity
        return first, -first

    def planned_keys(self) -> tuple[Key, ...]:
        """Return the keys of all exposures of the sample, both azimuths, in the order of taking."""
        return tuple(
            key
            for phi_deg in self.azimuths_deg
            for step in steps(self, phi_deg)
            if step.stream == "primary"
            for key in step.keys
        )


def steps(
    measurement: Measurement, phi_deg: float, skip: frozenset[Key] = frozenset()
) -> tuple[Step, ...]:
    """Return what one azimuth takes, in order; nothing at all if all its exposures are to skip.

    Dark frames come first, then flats of both helicities, then the angles from the lowest upwards,
    then flats again if the measurement says so.

    Raises
    ------
    ValueError
        If the measurement has no such azimuth.
    """
    if phi_deg not in measurement.azimuths_deg:
        known = ", ".join(f"{each:g}" for each in measurement.azimuths_deg)
        raise ValueError(
            f"phi = {phi_deg:g} deg is not an azimuth of the measurement ({known} deg)"
        )
    views = tuple(_views(measurement, phi_deg, skip))
    if not views:
        return ()
    flats, count = measurement.flats, measurement.flats.repeats
    # The flats end, and begin again, at the helicity of the view beside them.
    before = tuple(_flats(measurement, phi_deg, -views[0].helicity, 0))
    after = tuple(_flats(measurement, phi_deg, views[-1].helicity, count)) if flats.at_end else ()
    times_s = sorted({step.exposure_s for step in (*before, *views)})
    darks, repeats = [], measurement.darks.repeats
    for number, exposure_s in enumerate(times_s):
        taken = tuple(range(number * repeats, (number + 1) * repeats))
        darks.append(Step("dark", phi_deg, 0.0, 0, exposure_s, taken))
    return (*darks, *before, *views, *after)


def remaining(planned: Iterable[Key], done: Iterable[Key]) -> tuple[Key, ...]:
    """Return the planned keys that are not done, in the order of the plan."""
    finished = frozenset(done)
    return tuple(key for key in planned if key not in finished)


def estimate(
    measurement: Measurement,
    configuration: Configuration,
    frame_shape_vu: tuple[int, int],
    skip: frozenset[Key] = frozenset(),
) -> Estimate:
    """Estimate what a measurement takes on a beamline.

    ``duration = sum(exposure + readout) + moves of tilt, slit and, by hand, azimuth``.
    """
    usual, readout_s = configuration.durations, configuration.ccd.readout_time_s
    exposure_s, duration_s, frames, changes = 0.0, 0.0, 0, 0
    azimuths = 0
    for phi_deg in measurement.azimuths_deg:
        taken = steps(measurement, phi_deg, skip)
        azimuths += bool(taken)
        helicity, theta_deg = 0, math.nan
        for step in taken:
            frames += len(step.repeats)
            exposure_s += len(step.repeats) * step.exposure_s
            if step.stream != "dark":
                changes += step.helicity != helicity
                duration_s += usual.tilt_step_s * (step.theta_deg != theta_deg)
                helicity, theta_deg = step.helicity, step.theta_deg
    duration_s += exposure_s + frames * readout_s + changes * usual.helicity_change_s
    duration_s += max(azimuths - 1, 0) * usual.azimuth_change_s
    size = frames * 2 * math.prod(frame_shape_vu)
    return Estimate(duration_s, exposure_s, frames, size, changes)


def _views(measurement: Measurement, phi_deg: float, skip: frozenset[Key]) -> Iterator[Step]:
    for index, theta_deg in enumerate(measurement.angles_deg):
        exposed = measurement.exposures_at(theta_deg)
        for helicity in measurement.helicities_at(index):
            repeats = tuple(
                repeat
                for repeat in range(exposed.repeats)
                if Key(phi_deg, theta_deg, helicity, repeat) not in skip
            )
            if repeats:
                yield Step("primary", phi_deg, theta_deg, helicity, exposed.exposure_s, repeats)


def _flats(
    measurement: Measurement, phi_deg: float, first_helicity: int, first_repeat: int
) -> Iterator[Step]:
    flats = measurement.flats
    repeats = tuple(range(first_repeat, first_repeat + flats.repeats))
    for helicity in (first_helicity, -first_helicity):
        yield Step("flat", phi_deg, flats.theta_deg, helicity, flats.exposure_s, repeats)


def angles(first_deg: float, last_deg: float, step_deg: float) -> tuple[float, ...]:
    """Return equally spaced tilts, both ends included.

    >>> angles(-24, -22, 1)
    (-24.0, -23.0, -22.0)
    """
    count = round((last_deg - first_deg) / step_deg)
    return tuple(float(first_deg + index * step_deg) for index in range(count + 1))


PAPER_ANGLES_DEG = (*angles(-55, -24, 1), *angles(-22, 22, 2), *angles(24, 55, 1))
"""The 87 tilts of Hierro-Rodriguez et al., Nat. Commun. 11, 6382 (2020)."""

_TRILAYER = Sample(name="trilayer", layers_nm=((-120.0, -40.0), (40.0, 120.0)))


def _exposures(low: int, middle: int, high: int) -> tuple[Exposures, ...]:
    """Exposure times of the beamline's script of 2018: longer at high tilt."""
    return (
        Exposures(up_to_deg=24.0, exposure_s=8.0, repeats=low),
        Exposures(up_to_deg=44.0, exposure_s=12.0, repeats=middle),
        Exposures(up_to_deg=55.0, exposure_s=20.0, repeats=high),
    )


def paper(sample: Sample = _TRILAYER) -> Measurement:
    """Return the measurement of the paper: 87 tilts, two azimuths, 15 to 20 exposures.

    Exposure times and flats are those of the beamline's script of 2018, which takes 25 exposures
    above 44 deg where the paper says at most 20.
    """
    return Measurement(
        sample=sample,
        angles_deg=PAPER_ANGLES_DEG,
        exposures=_exposures(15, 20, 20),
        flats=Flats(exposure_s=3.0, repeats=50, at_end=True),
        darks=Darks(repeats=10),
        energy_ev=707.4,
    )


def medium(sample: Sample = _TRILAYER) -> Measurement:
    """Return all 87 tilts of the paper with 3 exposures each."""
    return Measurement(
        sample=sample,
        angles_deg=PAPER_ANGLES_DEG,
        exposures=_exposures(3, 3, 3),
        flats=Flats(exposure_s=3.0, repeats=10, at_end=True),
        darks=Darks(repeats=5),
        energy_ev=707.4,
    )


def small(sample: Sample = _TRILAYER) -> Measurement:
    """Return 23 tilts, every 5 deg, with 3 exposures each: a demonstration."""
    return Measurement(
        sample=sample,
        angles_deg=angles(-55, 55, 5),
        exposures=_exposures(3, 3, 3),
        flats=Flats(exposure_s=3.0, repeats=10),
        darks=Darks(repeats=5),
        energy_ev=707.4,
    )
