"""What a data folder holds of what was planned: from the journal alone, or proven frame by
frame."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mistral_txm.devices.key import Key
from mistral_txm.services.exposures import Exposure, RunExposures
from mistral_txm.services.frame_files import FrameError, existing
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.lease import acquiring


class UnknownSeriesError(ValueError):
    """There is no such series in the data folder; the message lists those that are."""


@dataclass
class SeriesRecord:
    """What the journal says about one series."""

    uid: str
    planned: list[Key] = field(default_factory=list)
    """All keys, in the planned order, as the last run of the series tells them."""
    exposures: list[Exposure] = field(default_factory=list)
    """Every exposure acknowledged, in any stream, in the order of time; repeated ones too."""
    runs: list[RunExposures] = field(default_factory=list)
    """Oldest first."""


@dataclass(frozen=True)
class Verification:
    """What of a series is there."""

    uid: str
    planned: int
    accepted: dict[Key, Exposure]
    """The last good exposure of each planned key."""
    missing: list[Key]
    """Planned keys without one, in the planned order."""
    repeated: list[Key]
    """Keys that were exposed again, once for each time."""
    damaged: list[tuple[Exposure, str]]
    """Exposures, of any stream, whose frame is not what was acknowledged, and why."""
    frames_read: int

    def summary(self) -> dict[str, Any]:
        """Return numbers and lists in the types that JSON knows."""
        return {
            "uid": self.uid,
            "planned": self.planned,
            "accepted": len(self.accepted),
            "missing": len(self.missing),
            "repeated": len(self.repeated),
            "damaged": len(self.damaged),
            "frames_read": self.frames_read,
            "missing_keys": [list(key) for key in self.missing],
            "repeated_keys": [list(key) for key in self.repeated],
            "damaged_frames": [
                {
                    "stream": exposure.stream,
                    "key": list(exposure.key),
                    "file": str(exposure.path),
                    "frame": exposure.frame_number,
                    "reason": reason,
                }
                for exposure, reason in self.damaged
            ],
        }


def read_series(data: Path, series: str | None = None) -> list[SeriesRecord]:
    """Read the journal of a data folder; the series that was measured last comes last.

    Parameters
    ----------
    data
        The data folder.
    series
        Uid of the only series wanted, or its first characters.

    Raises
    ------
    UnknownSeriesError
        If there is no such series, or more than one.
    JournalError
        If a file of the journal cannot be read.
    """
    records: dict[str, SeriesRecord] = {}
    for path in journal_files(data / "journal"):
        run = RunExposures()
        exposures = list(_exposures(path, run))
        uid = run.start.get("series")
        if uid is None:
            continue
        record = records[uid] = records.pop(uid, SeriesRecord(uid))
        record.planned = planned_keys(run.start) or record.planned
        record.exposures += exposures
        record.runs.append(run)
    return list(records.values()) if series is None else [_select(records, series, data)]


def _select(records: dict[str, SeriesRecord], series: str, data: Path) -> SeriesRecord:
    found = [record for uid, record in records.items() if uid.startswith(series)]
    if len(found) != 1:
        known = ", ".join(records) or "none"
        raise UnknownSeriesError(
            f"series {series}: {len(found) or 'no'} such series in {data}; known are: {known}"
        )
    return found[0]


def planned_keys(start: dict[str, Any]) -> list[Key]:
    """Return the keys that a start document plans for its whole series, in order.

    >>> planned_keys({"planned_keys": [[0.0, -55.0, 1, 1]]})
    [Key(phi_deg=0.0, theta_deg=-55.0, helicity=1, repeat=0)]
    """
    counts: dict[tuple[float, float, int], int] = {}
    keys = []
    for phi_deg, theta_deg, helicity, repeats in start.get("planned_keys", ()):
        group = (float(phi_deg), float(theta_deg), int(helicity))
        first = counts.get(group, 0)
        counts[group] = first + int(repeats)
        keys += [Key(*group, repeat) for repeat in range(first, counts[group])]
    return keys


def verify(data: Path, series: str | None = None) -> list[Verification]:
    """Read every frame that the journal acknowledges and compare its checksum.

    Darks, flats and repeated exposures are read too. A key whose only frame is damaged is missing.

    Raises
    ------
    UnknownSeriesError, JournalError
        As :func:`read_series`.
    """
    found = []
    for record in read_series(data, series):
        damaged: list[tuple[Exposure, str]] = []
        for exposure in record.exposures:
            try:
                exposure.read()
            except FrameError as error:
                damaged.append((exposure, str(error)))
        found.append(_compare(record, damaged, len(record.exposures)))
    return found


def series_status(data: Path, series: str | None = None) -> dict[str, Any]:
    """Return what is done and what comes next, as ``mistral-txm status --json`` prints it.

    Told from the journal, without reading frames; an exposure counts as damaged if its file is
    gone. ``state`` is ``complete``, ``running`` or ``interrupted``; ``next`` names the next missing
    key, and is ``None`` where none is.
    """
    records = {record.uid: record for record in read_series(data) if record.planned}
    newest = next(reversed(records), None)
    there: dict[Path, bool] = {}
    entries = []
    for record in records.values() if series is None else [_select(records, series, data)]:
        damaged = []
        for exposure in record.exposures:
            if exposure.path not in there:
                there[exposure.path] = existing(exposure.path) is not None
            if not there[exposure.path]:
                damaged.append((exposure, f"{exposure.path}: no such file"))
        state = _compare(record, damaged, 0)
        if not state.missing:
            word = "complete"
        elif record.uid == newest and acquiring(data):
            word = "running"
        else:
            word = "interrupted"
        entries.append(
            {
                "uid": record.uid,
                "planned": state.planned,
                "accepted": len(state.accepted),
                "missing": len(state.missing),
                "repeated": len(state.repeated),
                "damaged": len(state.damaged),
                "state": word,
                "next": describe_key(state.missing[0]) if state.missing else None,
            }
        )
    return {"series": entries}


def describe_key(key: Key) -> str:
    """Name a key for people.

    >>> describe_key(Key(90.0, -55.0, 1, 2))
    'phi 90 deg, theta -55 deg, helicity +1, repeat 3'
    """
    return (
        f"phi {key.phi_deg:g} deg, theta {key.theta_deg:g} deg, helicity {key.helicity:+d}, "
        f"repeat {key.repeat + 1}"
    )


def _exposures(path: Path, run: RunExposures) -> Iterator[Exposure]:
    """Yield every exposure of a run, also those that were taken again."""
    for name, doc in read_journal(path):
        exposure = run.add(name, doc)
        if exposure is not None:
            yield exposure


def _compare(
    record: SeriesRecord, damaged: list[tuple[Exposure, str]], frames_read: int
) -> Verification:
    bad = {id(exposure) for exposure, _ in damaged}
    planned = set(record.planned)
    accepted: dict[Key, Exposure] = {}
    repeated: list[Key] = []
    seen: set[Key] = set()
    for exposure in record.exposures:
        if exposure.stream != "primary":
            continue
        if exposure.key in seen:
            repeated.append(exposure.key)
        seen.add(exposure.key)
        # Where the jaws stood elsewhere, the helicity of the key was not assigned: it is to be taken again.
        assigned = exposure.polarization == exposure.key.helicity
        if exposure.key in planned and assigned and id(exposure) not in bad:
            accepted[exposure.key] = exposure
    return Verification(
        uid=record.uid,
        planned=len(record.planned),
        accepted=accepted,
        missing=[key for key in record.planned if key not in accepted],
        repeated=repeated,
        damaged=damaged,
        frames_read=frames_read,
    )
