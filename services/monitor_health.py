"""How the processes of a measurement are, told from what each leaves on the disk, and from the list of processes."""

import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, Literal

import psutil

from mistral_txm.services.json_files import read_json
from mistral_txm.services.lease import acquiring
from mistral_txm.services.live_files import stale_s

State = Literal["good", "off", "bad"]

WATCHDOG = "mistral_txm.services.watchdog"
FEW_HOURS = 2.0
"""So little room on the disk, in hours of measurement, is too little."""

STARTING_S = 180.0
"""For so long after the start of an acquisition a live reconstruction that never ran may compile its loops."""


@dataclass(frozen=True)
class Health:
    """How one part of the measurement is."""

    name: str
    state: State
    text: str
    """What it does, or what is wrong and what to do."""
    brief: str = ""
    """What of it is worth being seen at once."""


@dataclass(frozen=True)
class Pace:
    """What the newest run writes."""

    measuring: bool
    """Whether it has a start and no end."""
    bytes_per_s: float | None
    """Frames on the disk, at the pace of the run; None before it has one."""
    taken: int | None = None
    """Exposures of its series that count."""


def health(
    data: Path,
    status: Mapping[str, Any],
    documents: Mapping[str, int],
    pace: Pace,
    now_s: float,
) -> tuple[Health, ...]:
    """Look at everything once.

    Args:
        data: the data folder.
        status: of the live reconstruction, as far as it is known.
        documents: how many documents the journal has of each run.
        pace: of the newest run.
        now_s: the time, s since 1970.
    """
    acquires = acquiring(data)
    holder = read_json(data / "acquisition.lease")
    return (
        _acquisition(acquires, holder, pace.measuring),
        _watchdog(acquires, holder),
        _live(acquires and _age_s(holder, now_s) > STARTING_S, status, pace.taken, now_s),
        _catalog(acquires, _is_here(holder), data / "catalog", documents),
        _disk(data, pace.bytes_per_s),
    )


def _acquisition(acquires: bool, holder: Mapping[str, Any], measuring: bool) -> Health:
    if acquires:
        since = str(holder.get("since", "?"))[:16].replace("T", " ")
        who = f"{holder.get('user', '?')} on {holder.get('host', '?')}"
        return Health(
            "acquisition", "good", f"process {holder.get('pid', '?')} of {who}, since {since}"
        )
    if measuring:
        return Health(
            "acquisition", "bad", "has ended without the end of its run: `resume` takes the rest"
        )
    return Health("acquisition", "off", "none runs in this data folder")


def _watchdog(acquires: bool, holder: Mapping[str, Any]) -> Health:
    name = "watchdog"
    if not acquires:
        return Health(name, "off", "no acquisition to watch")
    if not _is_here(holder):
        return Health(name, "off", f"on {holder.get('host')}, cannot be seen from here")
    try:
        found = [one for one in psutil.Process(int(holder["pid"])).children() if _is_watchdog(one)]
    except (psutil.Error, KeyError, TypeError, ValueError):
        found = []
    if found:
        return Health(name, "good", f"process {found[0].pid} closes the shutter if all else ends")
    return Health(
        name, "bad", "not there: if the acquisition dies, close the shutter by hand; start it anew"
    )


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Return whether the processes of the last acquisition are those of this machine."""
    return bool(holder.get("host", socket.gethostname()) == socket.gethostname())


def _is_watchdog(process: psutil.Process) -> bool:
    try:
        return WATCHDOG in process.cmdline()
    except psutil.Error:
        return False


def _age_s(holder: Mapping[str, Any], now_s: float) -> float:
    """How long the acquisition has been there, s; infinite if it does not say since when."""
    try:
        return now_s - datetime.fromisoformat(str(holder.get("since"))).timestamp()
    except ValueError:
        return inf


def frames_behind(status: Mapping[str, Any], taken: int | None) -> int | None:
    """Return how many exposures are not in the volume, also those that the live process has not come to count yet.

    >>> frames_behind({"lag_frames": 6, "frames_seen": 20}, 23)
    9
    """
    lag, seen = status.get("lag_frames"), status.get("frames_seen")
    if not isinstance(lag, int):
        return None
    return max(0, taken - (seen - lag)) if taken is not None and isinstance(seen, int) else lag


def _live(is_expected: bool, status: Mapping[str, Any], taken: int | None, now_s: float) -> Health:
    name = "live"
    if not status:
        return Health(name, "bad" if is_expected else "off", "nothing published yet")
    state = str(status.get("state"))
    age_s = stale_s(status, now_s)
    if age_s is not None:
        return Health(
            name, "bad", "silent: see logs/live.log, or start `mistral-txm live`; nothing is lost"
        )
    lag, update_s = frames_behind(status, taken), status.get("update_s")
    words = [state]
    if lag is not None:
        words.append(f"{lag} frames behind")
    if isinstance(update_s, int | float):
        words.append(f"a volume takes {update_s:.1f} s")
    brief = f"{lag} frames behind" if lag else ""
    return Health(name, "bad" if state == "error" else "good", ", ".join(words), brief)


def _catalog(acquires: bool, here: bool, folder: Path, documents: Mapping[str, int]) -> Health:
    name = "catalog"
    runs = read_json(folder / "progress.json").get("runs")
    written = runs if isinstance(runs, dict) else {}
    process = read_json(folder / "address.json").get("pid")
    failed = [
        str(run["failed"])
        for run in written.values()
        if isinstance(run, dict) and run.get("failed")
    ]
    if failed:
        return Health(name, "bad", f"a run is not in it: {failed[0]}; the journal has it")
    done = {uid: run.get("documents", 0) for uid, run in written.items() if isinstance(run, dict)}
    behind = sum(max(0, count - int(done.get(uid, 0))) for uid, count in documents.items())
    if not isinstance(process, int):
        state: State = "bad" if acquires else "off"
        return Health(name, state, "its server does not run" + _behind(behind), _brief(behind))
    if here and not psutil.pid_exists(process):
        return Health(name, "bad", f"process {process} is gone; the journal has everything")
    text = f"process {process}" + (_behind(behind) or ", all is written")
    return Health(name, "good", text, _brief(behind))


def _brief(documents: int) -> str:
    return f"{documents} documents behind" if documents else ""


def _behind(documents: int) -> str:
    return f", {_brief(documents)}" if documents else ""


def _disk(data: Path, bytes_per_s: float | None) -> Health:
    try:
        free = shutil.disk_usage(data).free
    except OSError as cause:
        return Health("disk", "bad", f"cannot be asked: {cause.strerror}")
    text = f"{free / 1e9:.1f} GB free"
    if not bytes_per_s:
        return Health("disk", "good", text, text)
    hours = free / bytes_per_s / 3600
    told = "more than 1000" if hours > 1000 else f"{hours:.0f}" if hours >= 10 else f"{hours:.1f}"
    told += " h of measurement"
    return Health("disk", "bad" if hours < FEW_HOURS else "good", f"{text}: {told}", told)
