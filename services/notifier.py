"""Tells a person what must not wait until somebody looks: one line, once, by a command of the operator's choice.

It follows the journal from the moment it is first started on a data folder, in a process of its own. What it tells: a
pause, a wait for light or a question that lasts, a flag, the end of a run (the series or an azimuth is complete, or
what went wrong). The line goes to the standard input of the command, and takes the place of an argument ``{}``; there
is no shell. Without a command it is printed.

``DIR/notified.json`` holds how far the journal was followed and which lines are still to be told, so that a restart
leaves nothing out. It is written after a line was told: who is killed in between, or cannot write it, tells that line
again after a restart.
"""

import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mistral_txm.reconstruction.files import FileError, replaced_when_complete
from mistral_txm.services.exposures import HOLDS
from mistral_txm.services.held_file import held_file
from mistral_txm.services.journal import Document, JournalError, JournalTail, journal_files
from mistral_txm.services.verification import read_series

STATE = "notified.json"
PATIENCE_S = 60.0
"""A pause, a wait or a question that is over sooner is not told, s."""
POLL_S = 1.0
COMMAND_S = 30.0
"""Longest time that the command may take, s."""
TRIES = 5
"""So often a line is handed to a command that fails, with `RETRY_S` between."""
RETRY_S = 60.0

logger = logging.getLogger(__name__)

Tell = Callable[[str], bool]


@dataclass
class _Run:
    """A run of the journal, as far as it was read by this process."""

    tail: JournalTail
    start: Document = field(default_factory=dict)
    log_uids: set[str] = field(default_factory=set)
    read: int = 0
    waits: str = ""
    waits_from: float = 0.0
    """When the journal says that this wait began."""
    since_s: float = 0.0
    """When this process saw that it waits, on the monotonic clock."""
    broken: bool = False


class Notifier:
    """Follows the journal and hands lines on, call by call.

    Parameters
    ----------
    data
        The data folder.
    tell
        Takes one line; says whether it got through.
    patience_s
        A pause, wait or question that is over sooner is not told.
    now_s
        The monotonic clock.
    """

    def __init__(
        self,
        data: Path,
        tell: Tell,
        patience_s: float = PATIENCE_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._data, self._tell, self._patience_s, self._now_s = data, tell, patience_s, now_s
        self._runs: dict[str, _Run] = {}
        self._state = self._known()
        self._saved = ""
        self._again_s = 0.0
        self._troubles: dict[str, str] = {}

    def step(self) -> None:
        """Read what has come, and tell what is to be told."""
        try:
            paths = journal_files(self._data / "journal")
            self._trouble("journal")
        except OSError as error:  # away for a moment
            paths = []
            self._trouble("journal", error)
        for path in paths:
            self._runs.setdefault(path.stem, _Run(JournalTail(path)))
        for uid, run in self._runs.items():
            if not run.broken and not run.tail.finished:
                self._follow(uid, run)
            if run.waits and self._now_s() - run.since_s >= self._patience_s:
                self._tell_wait(uid, run)
        self._save()
        if self._now_s() >= self._again_s:
            self._deliver()

    def _known(self) -> dict[str, Any]:
        """Return where the last notifier stopped; at the very first start that is here."""
        try:
            found: dict[str, Any] = json.loads((self._data / STATE).read_text())
            return {
                "told": found["told"],
                "waits_told": found["waits_told"],
                "lines": found["lines"],
            }
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as damage:
            logger.error(
                "%s: not readable (%s); begins anew, from here", self._data / STATE, damage
            )
        told = {}
        for path in journal_files(self._data / "journal"):
            with contextlib.suppress(JournalError):
                told[path.stem] = sum(1 for _ in JournalTail(path).read())
        return {"told": told, "waits_told": {}, "lines": []}

    def _save(self) -> None:
        """Note how far it is; where that fails it is tried again, and a restart tells more than once."""
        text = json.dumps(self._state)
        if text == self._saved:
            return
        try:
            with replaced_when_complete(self._data / STATE) as temporary:
                temporary.write_text(text)
        except (FileError, OSError) as error:
            self._trouble(STATE, error)
        else:
            self._saved = text
            self._trouble(STATE)

    def _trouble(self, of: str, error: Exception | None = None) -> None:
        """Log once what is wrong with something, until it is well again."""
        text = "" if error is None else str(error)
        if text and text != self._troubles.get(of):
            logger.error("%s; tried again", text)
        self._troubles[of] = text

    def _follow(self, uid: str, run: _Run) -> None:
        """Take the documents of a run; those that were told before only say how it stands."""
        try:
            for name, doc in run.tail.read():
                run.read += 1
                is_new = run.read > self._state["told"].get(uid, 0)
                try:
                    lines = list(self._lines_of(run, name, doc, is_new))
                except (KeyError, TypeError, ValueError) as problem:
                    logger.error("%s: document %d: %r", run.tail.path, run.read, problem)
                    lines = []
                if is_new:
                    self._state["lines"] += [{"text": sayable(line), "tries": 0} for line in lines]
                    self._state["told"][uid] = run.read
            self._trouble(uid)
        except JournalError as error:
            run.broken = True
            logger.error("%s", error)
        except OSError as error:  # away for a moment
            self._trouble(uid, error)

    def _lines_of(self, run: _Run, name: str, doc: Document, is_new: bool) -> Iterator[str]:
        if name == "start":
            run.start = doc
        elif name == "descriptor" and doc.get("name") == "log":
            run.log_uids.add(doc["uid"])
        elif name == "event" and doc["descriptor"] in run.log_uids:
            kind, text = str(doc["data"]["log_kind"]), str(doc["data"]["log_text"])
            if kind in HOLDS:
                if not run.waits:
                    run.since_s, run.waits_from = self._now_s(), float(doc["time"])
                run.waits = f"{HOLDS[kind]}: {text}"
            elif kind == "go_on":
                run.waits = ""
            elif kind == "flag":
                yield f"{_called(run.start)}: {text}"
        elif name == "stop":
            run.waits = ""
            if is_new and run.start.get("planned_keys"):
                yield f"{_called(run.start)}: {self._ended(run.start, doc)}"

    def _tell_wait(self, uid: str, run: _Run) -> None:
        """Tell that a run waits, unless that was told: once until it goes on."""
        told = self._state["waits_told"]
        if told.get(uid) != run.waits_from:
            told[uid] = run.waits_from
            line = sayable(f"{_called(run.start)} {run.waits}")
            self._state["lines"].append({"text": line, "tries": 0})

    def _ended(self, start: Document, stop: Mapping[str, Any]) -> str:
        """Say how a run has ended, and what is left; without numbers where another file cannot be read."""
        ended, status = "the run has ended", stop.get("exit_status")
        if status != "success":
            reason = " ".join(str(stop.get("reason") or "no reason given").split())
            ended += f" ({status}): {reason}"
        try:
            (record,) = read_series(self._data, start["series"])
            stands = record.standing()
            (run,) = (one for one in record.runs if one.start["uid"] == start["uid"])
            taken_deg = {key.phi_deg for key in run.accepted()}
        except (JournalError, OSError, KeyError, TypeError, ValueError) as problem:
            logger.error("%s: what is left is not known: %s", start["series"], problem)
            return f"{ended}; what is left could not be read"
        left = len(stands.missing)
        if status != "success":
            rest = f"; `resume` takes the {left} exposures that are left" if left else ""
            return f"{ended}{rest}"
        if not left:
            return f"the series is complete, {len(stands.accepted)} exposures"
        if taken_deg and taken_deg.isdisjoint(key.phi_deg for key in stands.missing):
            next_deg = stands.missing[0].phi_deg
            return f"this azimuth is done; {left} exposures are left, phi {next_deg:g} deg is next"
        return f"{ended}; {left} exposures are left, `resume` takes them"

    def _deliver(self) -> None:
        """Hand on the lines in their order; one that does not get through is tried again later."""
        lines = self._state["lines"]
        while lines:
            if not self._tell(lines[0]["text"]):
                lines[0]["tries"] += 1
                if lines[0]["tries"] < TRIES:
                    self._again_s = self._now_s() + RETRY_S
                    self._save()
                    return
                logger.error("not told, given up: %s", lines[0]["text"])
            lines.pop(0)
            self._save()


def sayable(text: str) -> str:
    r"""Return a text as one line that every process can be given: a journal may hold what none can.

    >>> sayable("half \ud83d of\0a\npair")
    'half ? of a pair'
    """
    return " ".join(text.replace("\0", " ").encode(errors="replace").decode().split())


def _called(start: Mapping[str, Any]) -> str:
    """Return what a person calls the measurement."""
    sample = start.get("sample")
    name = sample.get("name") if isinstance(sample, Mapping) else sample
    words = [str(name or start.get("plan_name", "a run"))]
    if start.get("phi_deg") is not None:
        words.append(f"phi {start['phi_deg']:g} deg")
    if "edges" in start:
        words.append(f"{start['energy_ev']:g} eV")
    return ", ".join(words)


def command_of(argv: Sequence[str]) -> Tell:
    """Return what hands a line to a command: on its standard input, and for each argument ``{}``."""

    def tell(line: str) -> bool:
        command = [line if argument == "{}" else argument for argument in argv]
        try:
            done = subprocess.run(
                command,
                input=line + "\n",
                text=True,
                errors="replace",  # a program may speak another encoding
                capture_output=True,
                timeout=COMMAND_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            logger.error("%s: %s", argv[0], failure)
            return False
        if done.returncode:
            said = " ".join(done.stderr.split())[-200:]
            logger.error("%s: exit code %d: %s", argv[0], done.returncode, said)
        return done.returncode == 0

    return tell


def _print(line: str) -> bool:
    encoding = sys.stdout.encoding
    print(line.encode(encoding, "replace").decode(encoding), flush=True)
    return True


def notify(data: Path, argv: Sequence[str], patience_s: float, stop: threading.Event) -> None:
    """Follow the journal of a data folder until ``stop`` is set.

    Parameters
    ----------
    data
        The data folder.
    argv
        Command and its arguments; empty: lines are printed.
    patience_s
        A pause, wait or question that is over sooner is not told, s.
    stop
        Ends it when set.

    Raises
    ------
    RuntimeError
        If another notifier follows this data folder.
    """
    refusal = RuntimeError(f"{data}: somebody is notified already; end that notifier first")
    with held_file(data / f"{STATE}.lock", lambda: refusal):
        notifier = Notifier(data, command_of(argv) if argv else _print, patience_s)
        while not stop.is_set():
            notifier.step()
            stop.wait(POLL_S)
