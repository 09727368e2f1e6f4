"""How far a series is, and when it will end: from the documents of its runs alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mistral_txm.devices.key import Key
from mistral_txm.services.exposures import HOLDS, RETURN, STREAMS, Exposure, LogEntry, RunExposures
from mistral_txm.services.series_exposures import SeriesExposures


@dataclass(frozen=True)
class Place:
    """Where in its plan a series is, counted from 1."""

    azimuth: int
    azimuths: int
    tilt: int
    """Of its azimuth."""
    tilts: int
    repeats: int
    """How many are planned of this angle and helicity."""


@dataclass(frozen=True)
class Progress:
    """How far a series is."""

    series: str
    sample: str
    planned: int
    """Exposures planned, over all azimuths, without those that are waived."""
    taken: int
    """Exposures of the plan that are recorded and count, each key once."""
    state: str
    """"measuring", or the exit status of the newest run: "success", "abort", "fail"."""
    newest: Exposure | None
    place: Place | None = None
    """Of the newest exposure; None where it is none of the plan, as dark and flat fields."""
    pace_s: float | None = None
    """Time between two exposures of the sample in the newest run, s; None before there are two."""
    held: LogEntry | None = None
    """Why the newest run pauses or waits, if it does."""
    returns_at: tuple[float, ...] = ()
    """Azimuths, deg, at whose end the series goes back to zero tilt."""
    returned: frozenset[float] = frozenset()
    """Those at which it has begun to."""

    def ends_at(self, now_s: float) -> float | None:
        """Return when the last exposure will be there at the present pace, s since 1970; None if that is not known.

        ``time of the newest + exposures left * pace``. The exposure that is being taken does not end before ``now_s``;
        while the run is held, it has not begun.
        """
        left = self.planned - self.taken
        if self.newest is None or self.pace_s is None or self.state != "measuring" or left < 1:
            return None
        next_s = self.newest.time + self.pace_s
        begun = max(now_s, next_s) if self.held is None else now_s + self.pace_s
        return begun + (left - 1) * self.pace_s


def progress_of(series: SeriesExposures) -> Progress:
    """Sum up a series as its newest run left it."""
    run, stands = series.runs[-1], series.standing()
    exposures = [exposure for stream in STREAMS for exposure in run.stream(stream)]
    newest = max(exposures, key=lambda exposure: exposure.time, default=None)
    sample = run.start.get("sample", "")
    of_run = [one.time for one in stands.accepted.values() if one.run_uid == run.start["uid"]]
    return Progress(
        series=series.uid,
        sample=str(sample.get("name", "") if isinstance(sample, Mapping) else sample),
        planned=stands.planned,
        taken=len(stands.accepted),
        state=str(run.stop["exit_status"]) if run.stop is not None else "measuring",
        newest=newest,
        place=None if newest is None else place_of(newest.key, series.manifest),
        pace_s=pace_s(of_run, run.log),
        held=held(run),
        returns_at=_returns_at(series),
        returned=frozenset(one.key.phi_deg for run in series.runs for one in run.stream(RETURN)),
    )


def place_of(key: Key, manifest: Sequence[Key]) -> Place | None:
    """Find a key in a plan.

    >>> plan = [Key(phi, theta, +1, repeat) for phi in (0.0, 102.0) for theta in (-5.0, 5.0) for repeat in (0, 1)]
    >>> place_of(Key(102.0, -5.0, +1, 1), plan)
    Place(azimuth=2, azimuths=2, tilt=1, tilts=2, repeats=2)
    """
    if key not in manifest:
        return None
    azimuths = list(dict.fromkeys(one.phi_deg for one in manifest))
    tilts = list(dict.fromkeys(one.theta_deg for one in manifest if one.phi_deg == key.phi_deg))
    return Place(
        azimuths.index(key.phi_deg) + 1,
        len(azimuths),
        tilts.index(key.theta_deg) + 1,
        len(tilts),
        sum(one[:3] == key[:3] for one in manifest),
    )


def pace_s(times: Iterable[float], log: Iterable[LogEntry]) -> float | None:
    """Return the mean time between exposures, s, without what a log tells to have been paused or waited.

    >>> pace_s([0.0, 10.0, 80.0], [LogEntry(12.0, "wait", "no light"), LogEntry(72.0, "go_on", "")])
    10.0
    """
    ordered = sorted(times)
    if len(ordered) < 2 or ordered[-1] <= ordered[0]:
        return None
    events = [(entry.time, entry.kind) for entry in log] + [(one, "exposure") for one in ordered]
    held_s, since_s = 0.0, None
    for time_s, kind in sorted(event for event in events if event[0] >= ordered[0]):
        if kind in HOLDS and since_s is None:
            since_s = time_s
        elif kind in ("go_on", "exposure") and since_s is not None:
            held_s, since_s = held_s + time_s - since_s, None
    return (ordered[-1] - ordered[0] - held_s) / (len(ordered) - 1)


def _returns_at(series: SeriesExposures) -> tuple[float, ...]:
    plans = [run.start.get("measurement") for run in series.runs]
    if not any(isinstance(plan, Mapping) and plan.get("return_to_zero") for plan in plans):
        return ()
    tilts_of: dict[float, list[float]] = {}
    for key in series.manifest:
        tilts_of.setdefault(key.phi_deg, []).append(key.theta_deg)
    # A plan that ends at the tilt nearest zero has nothing to go back to.
    return tuple(phi_deg for phi_deg, tilts in tilts_of.items() if min(tilts, key=abs) != tilts[-1])


def held(run: RunExposures) -> LogEntry | None:
    """Return why a run pauses, waits or asks, unless it has gone on or ended since; other lines change nothing."""
    told = (entry for entry in reversed(run.log) if entry.kind == "go_on" or entry.kind in HOLDS)
    last = next(told, None)
    if last is None or last.kind not in HOLDS or run.stop is not None:
        return None
    taken = max((exposure.time for exposure in run.in_order()), default=0.0)
    return last if last.time >= taken else None
