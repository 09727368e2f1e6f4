"""The steps of a measurement: which exposures belong together, and in which order they are taken."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Measurement
from mistral_txm.plans.return_to_zero import return_keys

NOTHING: Mapping[float, Collection[Key]] = {}
"""Nothing is done yet, at any photon energy."""


@dataclass(frozen=True)
class Step:
    """Exposures that belong together: of one state of the beamline, into one file."""

    stream: Literal["dark", "flat", "primary", "zero"]
    phi_deg: float
    theta_deg: float
    helicity: int
    energy_ev: float
    exposure_s: float
    repeats: tuple[int, ...]

    @property
    def shows_sample(self) -> bool:
        """Whether the sample is in the beam."""
        return self.stream in ("primary", "zero")

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys of the exposures, in order."""
        return tuple(
            Key(self.phi_deg, self.theta_deg, self.helicity, repeat) for repeat in self.repeats
        )

    @property
    def file_name(self) -> str:
        """A name that says what is in the file.

        >>> Step("primary", 102.0, -55.0, -1, 707.4, 20.0, (0, 1)).file_name
        'phi_102_theta_-55_minus'
        >>> Step("dark", 0.0, 0.0, 0, 707.4, 8.5, (0,)).file_name
        'phi_0_dark_8.5s'
        >>> Step("zero", 0.0, 0.0, 1, 707.4, 8.0, (3, 4, 5)).file_name
        'phi_0_zero_0_plus'
        """
        phi = f"phi_{self.phi_deg:g}"
        if self.stream == "dark":
            return f"{phi}_dark_{self.exposure_s:g}s"
        side = "plus" if self.helicity > 0 else "minus"
        if self.stream == "flat":
            return f"{phi}_flat_{side}"
        tilt = "zero" if self.stream == "zero" else "theta"
        return f"{phi}_{tilt}_{self.theta_deg:g}_{side}"


def edge_series(series: str, measurement: Measurement, energy_ev: float) -> str:
    """Return the uid of the series at one photon energy: that of the measurement where there is only one.

    >>> from mistral_txm.plans.measurement import small
    >>> edge_series("s", small(), 707.4)
    's'
    >>> edge_series("s", small().model_copy(update={"energies_ev": (707.4, 778.1)}), 778.1)
    's-778.1eV'
    """
    return series if len(measurement.energies_ev) == 1 else f"{series}-{energy_ev:g}eV"


def steps(
    measurement: Measurement, phi_deg: float, skip: Mapping[float, Collection[Key]] = NOTHING
) -> tuple[Step, ...]:
    """Return what one azimuth takes, in order; nothing at all if all its exposures are to skip.

    For each photon energy dark frames come first, then flats of both helicities, then the tilts from
    the lowest upwards, with flats between them and at the end if the measurement says so, and the
    return to zero tilt before those at the end. With interleaved edges each tilt takes one helicity
    at all energies, then the other in reverse order, so that neither slit nor monochromator moves
    more than it must.

    Parameters
    ----------
    skip
        By photon energy, the keys that are done already, those of returns included.

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
    if measurement.edges == "interleaved":
        return tuple(_azimuth(measurement, phi_deg, measurement.energies_ev, skip))
    return tuple(
        step
        for energy_ev in measurement.energies_ev
        for step in _azimuth(measurement, phi_deg, (energy_ev,), skip)
    )


def manifest(measurement: Measurement) -> list[list[float]]:
    """Return what a whole series plans, ``[phi_deg, theta_deg, helicity, repeats]`` in the order of taking.

    It stands in the start document of every run, so that what is left can be told from any of them.
    """
    groups = groupby(measurement.planned_keys(), key=lambda key: key[:3])
    return [[*place, sum(1 for _ in keys)] for place, keys in groups]


def _azimuth(
    measurement: Measurement,
    phi_deg: float,
    energies_ev: Sequence[float],
    skip: Mapping[float, Collection[Key]],
) -> Iterator[Step]:
    done = {energy_ev: frozenset(skip.get(energy_ev, ())) for energy_ev in energies_ev}
    tilts = [
        views
        for index, theta_deg in enumerate(measurement.angles_deg)
        if (views := tuple(_views(measurement, phi_deg, theta_deg, index, done)))
    ]
    # It begins at the helicity of the view before.
    before = tilts[-1][-1].helicity if tilts else measurement.first_helicity
    back = tuple(_return(measurement, phi_deg, before, done))
    if not tilts and not back:
        return
    exposed = [view for of_tilt in (*tilts, back) for view in of_tilt]
    left_ev = [
        energy_ev
        for energy_ev in energies_ev
        if any(view.energy_ev == energy_ev for view in exposed)
    ]
    flats, taken = measurement.flats, 0
    yield from _darks(measurement, phi_deg, left_ev, exposed)
    # Flats end at the helicity of the view that follows, and begin at that of the view before.
    yield from _flats(measurement, phi_deg, -exposed[0].helicity, left_ev, taken)
    for count, of_tilt in enumerate(tilts, start=1):
        yield from of_tilt
        if flats.every_tilts and count % flats.every_tilts == 0 and count < len(tilts):
            taken += flats.repeats
            yield from _flats(measurement, phi_deg, of_tilt[-1].helicity, left_ev, taken)
    yield from back
    if flats.at_end:
        taken += flats.repeats
        yield from _flats(measurement, phi_deg, exposed[-1].helicity, left_ev, taken)


def _darks(
    measurement: Measurement, phi_deg: float, energies_ev: Sequence[float], views: Sequence[Step]
) -> Iterator[Step]:
    """Yield dark frames for every exposure time that flats and views may have."""
    control, repeats = measurement.exposure_control, measurement.darks.repeats
    times_s = {measurement.flats.exposure_s, *(control.exposures_s if control else ())}
    for energy_ev in energies_ev:
        used_s = times_s | {view.exposure_s for view in views if view.energy_ev == energy_ev}
        for number, exposure_s in enumerate(sorted(used_s)):
            taken = tuple(range(number * repeats, (number + 1) * repeats))
            yield Step("dark", phi_deg, 0.0, 0, energy_ev, exposure_s, taken)


def _flats(
    measurement: Measurement,
    phi_deg: float,
    first_helicity: int,
    energies_ev: Sequence[float],
    first_repeat: int,
) -> Iterator[Step]:
    flats = measurement.flats
    repeats = tuple(range(first_repeat, first_repeat + flats.repeats))
    for helicity, those_ev in (
        (first_helicity, energies_ev),
        (-first_helicity, energies_ev[::-1]),
    ):
        for energy_ev in those_ev:
            yield Step(
                "flat", phi_deg, flats.theta_deg, helicity, energy_ev, flats.exposure_s, repeats
            )


def _views(
    measurement: Measurement,
    phi_deg: float,
    theta_deg: float,
    index: int,
    done: Mapping[float, frozenset[Key]],
) -> Iterator[Step]:
    repeats = measurement.exposures_at(theta_deg).repeats
    wanted = [
        Key(phi_deg, theta_deg, helicity, repeat)
        for helicity in (1, -1)
        for repeat in range(repeats)
    ]
    first, _ = measurement.helicities_at(index)
    yield from _pair(measurement, "primary", wanted, first, done)


def _return(
    measurement: Measurement,
    phi_deg: float,
    first_helicity: int,
    done: Mapping[float, frozenset[Key]],
) -> Iterator[Step]:
    wanted = [key for key in return_keys(measurement) if key.phi_deg == phi_deg]
    yield from _pair(measurement, "zero", wanted, first_helicity, done)


def _pair(
    measurement: Measurement,
    stream: Literal["primary", "zero"],
    wanted: Sequence[Key],
    first_helicity: int,
    done: Mapping[float, frozenset[Key]],
) -> Iterator[Step]:
    """Yield what is left of the exposures of one tilt, in both helicities, at all energies."""
    energies_ev = tuple(done)
    for helicity, those_ev in (
        (first_helicity, energies_ev),
        (-first_helicity, energies_ev[::-1]),
    ):
        of_it = [key for key in wanted if key.helicity == helicity]
        for energy_ev in those_ev:
            left = [key for key in of_it if key not in done[energy_ev]]
            if left:
                phi_deg, theta_deg, *_ = left[0]
                exposure_s = measurement.exposures_at(theta_deg).exposure_s
                repeats = tuple(key.repeat for key in left)
                yield Step(stream, phi_deg, theta_deg, helicity, energy_ev, exposure_s, repeats)
