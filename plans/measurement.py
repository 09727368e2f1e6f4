"""The measurement as a value: what is exposed, and how, before anything moves."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mistral_txm.devices.key import Key
from mistral_txm.devices.strict_toml import ConfigurationError, Strict, read_toml

PRESETS = Path(__file__).with_name("presets")
"""Folder of the packaged measurements."""


def _tuples(value: object) -> object:
    """TOML and JSON have lists where a value that does not change has tuples."""
    return tuple(_tuples(each) for each in value) if isinstance(value, list | tuple) else value


_Tuples = BeforeValidator(_tuples)
_Seconds = Annotated[float, Field(gt=0, le=600)]
_Count = Annotated[int, Field(ge=1, le=1000)]
_Tilt = Annotated[float, Field(gt=-90, lt=90)]


class Tilts(Strict):
    """Equally spaced tilts, both ends included, and how each of them is exposed.

    >>> Tilts(first_deg=-24.0, last_deg=-22.0, exposure_s=8.0, repeats=15).angles_deg
    (-24.0, -23.0, -22.0)
    """

    first_deg: _Tilt
    last_deg: _Tilt
    step_deg: Annotated[float, Field(gt=0)] = 1.0
    exposure_s: _Seconds
    repeats: _Count

    @model_validator(mode="after")
    def _steps_end_at_the_last(self) -> Self:
        if self.last_deg < self.first_deg:
            raise ValueError(
                f"tilts: last_deg = {self.last_deg:g} is below first_deg = {self.first_deg:g}; "
                "theta is approached from below, so give them ascending"
            )
        steps = (self.last_deg - self.first_deg) / self.step_deg
        if abs(steps - round(steps)) > 1e-6:
            raise ValueError(
                f"tilts: steps of {self.step_deg:g} deg from {self.first_deg:g} do not end at "
                f"{self.last_deg:g} deg"
            )
        return self

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """The tilts, ascending."""
        count = round((self.last_deg - self.first_deg) / self.step_deg) + 1
        return tuple(round(self.first_deg + index * self.step_deg, 9) for index in range(count))


class Flats(Strict):
    """Exposures of the open beam in both helicities: before the tilts, and perhaps later.

    `every_tilts`: also after so many tilts each time; `at_end`: also after the last one.
    """

    exposure_s: _Seconds
    repeats: _Count
    theta_deg: _Tilt = 0.0
    every_tilts: _Count | None = None
    at_end: bool = False


class Darks(Strict):
    """Exposures with the shutter closed, `repeats` for each exposure time that may be used."""

    repeats: _Count


class ReturnToZero(Strict):
    """After the last tilt of each azimuth the one nearest zero is exposed again, `repeats` times in each helicity.

    It shows what happened to the sample meanwhile, and is no part of the volume.
    """

    repeats: _Count


class Focus(Strict):
    """Where the zone plate focuses each helicity; without it, where the instrument says."""

    positive_um: float
    negative_um: float


class ExposureControl(Strict):
    """Lets the counts that are seen choose the exposure time, and end the repeats early.

    At each tilt and helicity the longest of `exposures_s` is taken with which the brightest pixels
    stay below `fill` of the saturation. The exposure of `Tilts` holds until counts have been seen,
    its repeats are the most that are taken: with `signal_to_noise`, they end after `least_repeats`
    or more as soon as the average has it (photon statistics, a pixel of mean transmission).
    """

    exposures_s: Annotated[tuple[_Seconds, ...], _Tuples]
    fill: Annotated[float, Field(gt=0, le=1)] = 0.8
    signal_to_noise: Annotated[float, Field(gt=0)] | None = None
    least_repeats: _Count = 1

    @model_validator(mode="after")
    def _is_a_choice(self) -> Self:
        if not self.exposures_s or list(self.exposures_s) != sorted(set(self.exposures_s)):
            raise ValueError(
                "exposure_control: exposures_s: expected ascending exposure times, each once"
            )
        return self


class Stop(Strict):
    """When no further tilt is begun: what is missing then is taken by a resumed series.

    `max_duration_h`: after so long, in the whole measurement. `resolution_nm`: when the live reconstruction has said
    for two volumes of an azimuth that it is this good; the next azimuth is still begun.
    """

    max_duration_h: Annotated[float, Field(gt=0)] | None = None
    resolution_nm: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _says_when(self) -> Self:
        if self.max_duration_h is None and self.resolution_nm is None:
            raise ValueError("stop: expected max_duration_h, resolution_nm or both")
        return self


class Place(Strict):
    """Where the stages stand when a sample of a holder is in the beam."""

    x_um: float
    y_um: float
    z_um: float


class Sample(Strict):
    """What is measured, with lengths in nm from the middle of the film.

    `layers_nm` are its magnetic layers; `surfaces_nm` its lower and upper surface, membrane included,
    on which fiducials lie: they tell where the middle of the film is. `place` is where it stands in a
    holder of several; without it, where the instrument says.
    """

    name: Annotated[str, Field(min_length=1)]
    layers_nm: Annotated[tuple[tuple[float, float], ...], _Tuples] | None = None
    surfaces_nm: Annotated[tuple[float, float], _Tuples] | None = None
    place: Place | None = None

    @model_validator(mode="after")
    def _layers_have_thickness(self) -> Self:
        for low_nm, high_nm in self.layers_nm or ():
            if not low_nm < high_nm:
                raise ValueError(f"layers_nm: [{low_nm}, {high_nm}]: expected the lower end first")
        if self.surfaces_nm is not None and not self.surfaces_nm[0] < self.surfaces_nm[1]:
            raise ValueError(f"surfaces_nm: {list(self.surfaces_nm)}: expected the lower one first")
        return self


class Measurement(Strict):
    """A vector tomography: one tilt series per azimuth and photon energy, both helicities at each angle.

    With several energies each is a series of its own, resumed and reconstructed alone. `edges` says in
    which order: ``in_turn``, the whole azimuth at one energy, then at the next, or ``interleaved``,
    all energies at each tilt. `quality` says what a flag of the live reconstruction does before the next tilt: it is
    noted, or the plan pauses until somebody has looked.

    >>> measurement = small()
    >>> len(measurement.angles_deg), len(measurement.planned_keys())
    (23, 276)
    >>> Measurement.from_dict(measurement.to_dict()) == measurement
    True
    """

    sample: Sample
    tilts: Annotated[tuple[Tilts, ...], _Tuples]
    azimuths_deg: Annotated[tuple[Annotated[float, Field(ge=-360, le=360)], ...], _Tuples] = (
        0.0,
        102.0,
    )
    energies_ev: Annotated[tuple[Annotated[float, Field(gt=0)], ...], _Tuples]
    edges: Literal["in_turn", "interleaved"] = "in_turn"
    first_helicity: Literal[1, -1] = 1
    flats: Flats
    darks: Darks
    return_to_zero: ReturnToZero | None = None
    focus: Focus | None = None
    exposure_control: ExposureControl | None = None
    stop: Stop | None = None
    quality: Literal["pause", "note"] = "note"

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for name in ("tilts", "azimuths_deg", "energies_ev"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one")
        for low, high in pairwise(self.tilts):
            if not low.last_deg < high.first_deg:
                raise ValueError(
                    f"tilts: the one that begins at {high.first_deg:g} deg must lie above the one "
                    f"that ends at {low.last_deg:g} deg; expected ascending order"
                )
        for name in ("azimuths_deg", "energies_ev"):
            values: Sequence[float] = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected each once")
        if self.focus is not None and len(self.energies_ev) > 1:
            raise ValueError("focus: holds at one photon energy; leave it out for several")
        control = self.exposure_control
        if control is not None and control.signal_to_noise is not None:
            most = min(each.repeats for each in self.tilts)
            if control.least_repeats > most:
                raise ValueError(
                    f"exposure_control: least_repeats = {control.least_repeats} is more than the "
                    f"{most} repeats of some tilts"
                )
        return self

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Measurement":
        """Make a measurement from what `to_dict` returned.

        Raises
        ------
        ValueError
            If something is unknown, missing or out of range.
        """
        return cls.model_validate(value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists, numbers and texts, for documents and files."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """All tilts, ascending."""
        return tuple(theta_deg for each in self.tilts for theta_deg in each.angles_deg)

    def exposures_at(self, theta_deg: float) -> Tilts:
        """Return how a planned tilt is exposed.

        >>> paper().exposures_at(-44.0).repeats, paper().exposures_at(45.0).exposure_s
        (20, 20.0)
        """
        # The angles are rounded, the ends of a region as they were given are not.
        return next(
            each
            for each in self.tilts
            if each.first_deg - 1e-8 <= theta_deg <= each.last_deg + 1e-8
        )

    def helicities_at(self, index: int) -> tuple[int, int]:
        """Return the order of the helicities at the angle of that index: + -, then - +, and so on.

        The helicity changes once per angle, and a linear drift cancels over two angles.
        """
        first = self.first_helicity if index % 2 == 0 else -self.first_helicity
        return first, -first

    def planned_keys(self) -> tuple[Key, ...]:
        """Return the keys of all exposures of the sample at one energy, in the order of taking."""
        return tuple(
            Key(phi_deg, theta_deg, helicity, repeat)
            for phi_deg in self.azimuths_deg
            for index, theta_deg in enumerate(self.angles_deg)
            for helicity in self.helicities_at(index)
            for repeat in range(self.exposures_at(theta_deg).repeats)
        )

    def at_energy(self, energy_ev: float) -> "Measurement":
        """Return the part of it that is taken at one of its photon energies: one series."""
        if energy_ev not in self.energies_ev:
            raise ValueError(f"{energy_ev:g} eV is not an energy of the measurement")
        return self.model_copy(update={"energies_ev": (energy_ev,), "edges": "in_turn"})

    def of(self, sample: Sample) -> "Measurement":
        """Return the same of another sample."""
        return self.model_copy(update={"sample": sample})


def presets() -> tuple[str, ...]:
    """Return the names of the packaged measurements."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load_measurement(what: str | Path) -> Measurement:
    """Read a measurement: a TOML file, or one that is packaged by its name.

    >>> load_measurement("script_2018").exposures_at(55.0).repeats
    25

    Raises
    ------
    ConfigurationError
        If there is no such name or file, or something in it is wrong: one line with file and line
        number.
    """
    if str(what) in presets():
        return read_toml(PRESETS / f"{what}.toml", Measurement)
    path = Path(what)
    if not path.suffix and not path.exists():
        raise ConfigurationError(
            f"{what}: no such measurement; give a TOML file, or one of {', '.join(presets())}"
        )
    return read_toml(path, Measurement)


def paper(sample: Sample | None = None) -> Measurement:
    """Return the measurement of the paper: 87 tilts, two azimuths, 15 to 20 exposures.

    Exposure times and flats are those of the beamline's script of 2018, which takes 25 exposures
    above 44 deg (preset ``script_2018``) where the paper says at most 20.
    """
    return _preset("paper", sample)


def medium(sample: Sample | None = None) -> Measurement:
    """Return all 87 tilts of the paper with 3 exposures each."""
    return _preset("medium", sample)


def small(sample: Sample | None = None) -> Measurement:
    """Return 23 tilts, every 5 deg, with 3 exposures each: a demonstration."""
    return _preset("small", sample)


def _preset(name: str, sample: Sample | None) -> Measurement:
    measurement = load_measurement(name)
    return measurement if sample is None else measurement.of(sample)
