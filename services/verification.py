"""What a data folder holds of what was planned: from the journal alone, or proven frame by
frame."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistral_txm.devices.key import Key
from mistral_txm.services.exposures import Exposure, RunExposures
from mistral_txm.services.frame_files import FrameError, existing
from mistral_txm.services.journal import JournalTail, journal_files
from mistral_txm.services.lease import acquiring
from mistral_txm.services.series_exposures import SeriesExposures
from mistral_txm.services.standing import Standing, describe_key


class UnknownSeriesError(ValueError):
    """There is no such series in the data folder; the message lists those that are."""


@dataclass(frozen=True)
class Verification:
    """What of a series is there: ``accepted + waived + missing`` is its manifest."""

    uid: str
    planned: int
    """Keys of the manifest that are not waived."""
    accepted: Mapping[Key, Exposure]
    """The last good exposure of each planned key, unless it was rejected."""
    missing: list[Key]
    """Planned keys without one, in the planned order."""
    waived: list[Key]
    """Keys that nobody needs any more, and that were not taken."""
    rejected: list[Key]
    """Those of the missing keys whose exposures were rejected."""
    repeated: list[Key]
    """Keys that were exposed again, once for each time."""
    damaged: list[tuple[Exposure, str]]
    """Exposures, of any stream, whose frame is not what was acknowledged, and why."""
    frames_read: int

    @property
    def done(self) -> frozenset[Key]:
        """Keys that are not to be taken any more: what whoever resumes the series skips."""
        return frozenset(self.accepted).union(self.waived)

    def summary(self) -> dict[str, Any]:
        """Return numbers and lists in the types that JSON knows."""
        return {
            "uid": self.uid,
            "planned": self.planned,
            "accepted": len(self.accepted),
            "missing": len(self.missing),
            "waived": len(self.waived),
            "rejected": len(self.rejected),
            "repeated": len(self.repeated),
            "damaged": len(self.damaged),
            "frames_read": self.frames_read,
            "missing_keys": [list(key) for key in self.missing],
            "waived_keys": [list(key) for key in self.waived],
            "rejected_keys": [list(key) for key in self.rejected],
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


@dataclass(frozen=True)
class SeriesState:
    """How a series stands by its journal alone, without reading frames."""

    uid: str
    planned: int
    accepted: int
    missing: int
    repeated: int
    damaged: int
    """Exposures whose file is gone."""
    waived: int
    rejected: int
    """Missing keys whose exposures were rejected."""
    state: str
    """``complete``, ``running`` or ``interrupted``."""
    next: str | None
    """The next missing key, for people."""


def read_series(data: Path, series: str | None = None) -> list[SeriesExposures]:
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
    records, _ = _read(data)
    return list(records.values()) if series is None else [_select(records, series, data)]


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
        stands = record.standing(frozenset(exposure for exposure, _ in damaged))
        found.append(
            Verification(
                uid=record.uid,
                planned=stands.planned,
                accepted=stands.accepted,
                missing=list(stands.missing),
                waived=list(stands.waived),
                rejected=list(stands.rejected),
                repeated=list(stands.repeated),
                damaged=damaged,
                frames_read=len(record.exposures),
            )
        )
    return found


def series_states(data: Path, series: str | None = None) -> list[SeriesState]:
    """Return what is done of each series and what comes next; the one that was measured last comes last.

    Raises
    ------
    UnknownSeriesError, JournalError
        As :func:`read_series`.
    """
    records, writers = _read(data)
    running = _running(data, records, writers)
    there: dict[Path, bool] = {}
    found = []
    for record in records.values() if series is None else [_select(records, series, data)]:
        for path in {exposure.path for exposure in record.exposures}.difference(there):
            there[path] = existing(path) is not None
        lost = frozenset(one for one in record.exposures if not there[one.path])
        stands = record.standing(lost)
        if record.manifest:
            found.append(_state(record.uid, stands, len(lost), record.uid in running))
    return found


def series_status(data: Path, series: str | None = None) -> dict[str, Any]:
    """Return what is done and what comes next, as ``mistral-txm status --json`` prints it."""
    names = (
        "uid",
        "planned",
        "accepted",
        "missing",
        "repeated",
        "damaged",
        "state",
        "next",
    )
    states = series_states(data, series)
    return {"series": [{name: getattr(state, name) for name in names} for state in states]}


def _state(uid: str, stands: Standing[Exposure], lost: int, running: bool) -> SeriesState:
    unfinished = "running" if running else "interrupted"
    return SeriesState(
        uid=uid,
        planned=stands.planned,
        accepted=len(stands.accepted),
        missing=len(stands.missing),
        repeated=len(stands.repeated),
        damaged=lost,
        waived=len(stands.waived),
        rejected=len(stands.rejected),
        state=unfinished if stands.missing else "complete",
        next=describe_key(stands.missing[0]) if stands.missing else None,
    )


def _read(data: Path) -> tuple[dict[str, SeriesExposures], dict[str, int]]:
    """Read all series, and which process was writing the newest run of each if that has not ended."""
    records: dict[str, SeriesExposures] = {}
    writers: dict[str, int] = {}
    for path in journal_files(data / "journal"):
        tail = JournalTail(path)
        run = RunExposures.of(tail.read())
        uid = run.start.get("series")
        if uid is None:
            continue
        record = records.get(uid) or SeriesExposures(run.start)
        record.add_run(run)
        if run.is_rejection and uid in records:
            continue
        records.pop(uid, None)
        records[uid] = record
        writers.pop(uid, None)
        if run.stop is None and tail.header is not None:
            writers[uid] = int(tail.header["pid"])
    return records, writers


def _running(
    data: Path, records: Mapping[str, SeriesExposures], writers: Mapping[str, int]
) -> frozenset[str]:
    """Return the series that are being measured: the newest, and one whose run the same process has open.

    It is not where its last run was ended, or the process that wrote that is gone; between the runs of two azimuths
    it is, but not where nothing but rejected exposures is left to take.
    """
    newest = next((uid for uid in reversed(list(records)) if records[uid].manifest), None)
    if newest is None or not acquiring(data):
        return frozenset()
    writer = writers.get(newest)
    run = records[newest].runs[-1]
    if run.stop is None and not _lives(writer):
        return frozenset()
    if run.stop is not None:
        stands = records[newest].standing()
        if run.stop["exit_status"] != "success" or set(stands.missing) <= set(stands.rejected):
            return frozenset()
    return frozenset({newest, *(uid for uid, pid in writers.items() if pid == writer)})


def _lives(pid: int | None) -> bool:
    try:
        os.kill(pid or os.getpid(), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _select(records: Mapping[str, SeriesExposures], series: str, data: Path) -> SeriesExposures:
    if series in records:
        return records[series]
    found = [record for uid, record in records.items() if uid.startswith(series)]
    if len(found) != 1:
        known = ", ".join(records) or "none"
        raise UnknownSeriesError(
            f"series {series}: {len(found) or 'no'} such series in {data}; known are: {known}"
        )
    return found[0]
