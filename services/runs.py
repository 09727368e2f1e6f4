"""The list of runs of a data folder, from its journal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.journal import journal_files, read_journal


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs."""

    uid: str
    series: str | None
    time: float
    """Start, s since 1970-01-01 UTC."""
    plan_name: str
    phi_deg: float | None
    energy_ev: float | None
    sample: str | None
    exit_status: str
    """``success``, ``abort``, ``fail``; ``no stop document`` where the run is going on, or its
    process died."""
    reason: str
    """Why it ended as it did; of a run that rejects exposures, why."""
    exposures: int
    """Exposures of the primary stream, each key once."""
    rejected: int
    """Exposures of earlier runs that it rejects."""

    def as_dict(self) -> dict[str, Any]:
        """Return it in the types that JSON knows."""
        return asdict(self)


def list_runs(data: Path) -> list[RunSummary]:
    """Return the runs of a data folder, the oldest first.

    Raises
    ------
    JournalError
        If a file of the journal cannot be read.
    """
    runs = [RunExposures.of(read_journal(path)) for path in journal_files(data / "journal")]
    return [summarize(run) for run in runs if run.start]


def summarize(run: RunExposures) -> RunSummary:
    """Return the line that stands for a run."""
    start, stop = run.start, run.stop or {}
    sample = start.get("sample")
    name = sample.get("name") if isinstance(sample, dict) else sample
    return RunSummary(
        uid=start["uid"],
        series=start.get("series"),
        time=float(start["time"]),
        plan_name=str(start.get("plan_name", "")),
        phi_deg=None if start.get("phi_deg") is None else float(start["phi_deg"]),
        energy_ev=energy_ev(start),
        sample=None if name is None else str(name),
        exit_status=str(stop.get("exit_status", "no stop document")),
        reason=str(stop.get("reason") or (start.get("reason", "") if run.is_rejection else "")),
        exposures=len(run.accepted()),
        rejected=len(run.contribution().rejected),
    )


def energy_ev(start: Mapping[str, Any]) -> float | None:
    """Return the photon energy of a run, eV, if its start document tells it.

    >>> energy_ev({"energy_ev": 707.4}), energy_ev({"measurement": {"energy_ev": 778.1}}), energy_ev({})
    (707.4, 778.1, None)
    """
    found = start.get("energy_ev", start.get("measurement", {}).get("energy_ev"))
    return None if found is None else float(found)
