"""What journal and live reconstruction say of a series that was measured, for those who report on it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mistral_txm.services.exposures import LogEntry
from mistral_txm.services.live_files import LIVE, STATUS, read_status
from mistral_txm.services.runs import RunSummary, summarize
from mistral_txm.services.verification import read_series


@dataclass(frozen=True)
class MeasuredSeries:
    """A series as it stands."""

    uid: str
    sample: str
    runs: tuple[RunSummary, ...]
    exposures: Mapping[str, int]
    """How many exposures are planned, accepted, missing, repeated, rejected, waived."""
    log: tuple[LogEntry, ...]
    """What was notable in all its runs, in the order of time."""
    status: Mapping[str, Any] = field(default_factory=dict)
    """The status of its live reconstruction (see `live_files`); empty if there is none."""


def measured_series(data: Path, series: str) -> MeasuredSeries:
    """Read what there is of a series.

    Parameters
    ----------
    data
        The data folder.
    series
        Uid of the series, or its first characters.

    Raises
    ------
    UnknownSeriesError
        If there is no such series, or more than one.
    JournalError
        If a file of the journal cannot be read.
    """
    (record,) = read_series(data, series)
    stands = record.standing()
    runs = tuple(summarize(run) for run in record.runs)
    try:
        status = read_status(data / LIVE / record.uid / STATUS)
    except ValueError:
        status = {}
    return MeasuredSeries(
        uid=record.uid,
        sample=next((run.sample for run in runs if run.sample), ""),
        runs=runs,
        exposures={
            "planned": stands.planned,
            "accepted": len(stands.accepted),
            "missing": len(stands.missing),
            "taken again": len(stands.repeated),
            "rejected": len(stands.rejected),
            "not needed any more": len(stands.waived),
        },
        log=tuple(
            sorted((entry for run in record.runs for entry in run.log), key=lambda one: one.time)
        ),
        status=status,
    )
