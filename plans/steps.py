"""The steps of a measurement: which exposures belong together, and in which order they are taken."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Measurement

NOTHING: Mapping[float, Collection[Key]] = {}
"""Nothing is done yet, at any photon energy."""


@dataclass(frozen=True)
class Step:
    """Exposures that belong together: of one state of the beamline, into one file."""

    stream: Literal["dark", "flat", "primary"]
    phi_deg: float
    theta_deg: float
    helicity: int
    energy_ev: float
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

        >>> Step("primary", 102.0, -55.0, -1, 707.4, 20.0, (0, 1)).file_name
        'phi_102_theta_-55_minus'
        >>> Step("dark", 0.0, 0.0, 0, 707.4, 8.5, (0,)).file_name
        'phi_0_dark_8.5s'
        """
        phi = f"phi_{self.phi_deg:g}"
        if self.stream == "dark":
            return f"{phi}_dark_{self.exposure_s:g}s"
        side = "plus" if self.helicity > 0 else "minus"
        if self.stream == "flat":
            return f"{phi}_flat_{side}"
        return f"{phi}_theta_{self.theta_deg:g}_{side}"


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
    the lowest upwards, with flats between them and at the end if the measurement says so. With
    interleaved edges each tilt takes one helicity at all energies, then the other in reverse order,
    so that neither slit nor monochromator moves more than it must.

    Parameters
    ----------
    skip
        By photon energy, the keys that are done already.

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
    if not tilts:
        return
    left_ev = [
        energy_ev
        for energy_ev in energies_ev
        if any(view.energy_ev == energy_ev for views in tilts for view in views)
    ]
    flats, taken = measurement.flats, 0
    yield from _darks(measurement, phi_deg, left_ev, [view for views in tilts for view in views])
    # Flats end at the helicity of the view that follows, and begin at that of the view before.
    yield from _flats(measurement, phi_deg, -tilts[0][0].helicity, left_ev, taken)
    for count, views in enumerate(tilts, start=1):
        yield from views
        between = flats.every_tilts and count % flats.every_tilts == 0 and count < len(tilts)
        if between or (flats.at_end and count == len(tilts)):
            taken += flats.repeats
            yield from _flats(measurement, phi_deg, views[-1].helicity, left_ev, taken)


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
    exposed = measurement.exposures_at(theta_deg)
    first, second = measurement.helicities_at(index)
    energies_ev = tuple(done)
    for helicity, those_ev in ((first, energies_ev), (second, energies_ev[::-1])):
        for energy_ev in those_ev:
            repeats = tuple(
                repeat
                for repeat in range(exposed.repeats)
                if Key(phi_deg, theta_deg, helicity, repeat) not in done[energy_ev]
            )
            if repeats:
                yield Step(
                    "primary", phi_deg, theta_deg, helicity, energy_ev, exposed.exposure_s, repeats
                )
