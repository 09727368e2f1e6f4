"""The journal: every document of every run, on the local disk before the next step is taken.

It is the truth that all else is derived from. Nothing but :class:`JournalWriter` runs inside the
RunEngine; the catalog, the live reconstruction and the status follow the files in processes of
their own, each at its own pace.

One file per run, ``<uid of the run>.jsonl``. The first line is a header, ``{"journal": 1, "time":
.., "pid": .., "host": .., "program": ..}``. Every further line is one document::

    {"n": 17, "monotonic_s": 5123.25, "name": "event", "doc": {...}}

``n`` counts from 0 within the run and is the order that counts, whatever the clocks do;
``monotonic_s`` is for durations. Not-a-number and infinity are written as ``NaN`` and ``Infinity``,
as Python reads and writes them. A last line without its line end was cut by a crash and does not
count: it was never acknowledged.
"""

import datetime
import enum
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

JOURNAL_VERSION = 1
"""Version of the file format that this program writes, and the only one it reads."""

Document = dict[str, Any]
"""A Bluesky document."""

logger = logging.getLogger(__name__)


class JournalError(RuntimeError):
    """A journal cannot be written or read; the message says which file, where and why."""


class JournalWriter:
    """The one callback of the RunEngine: appends each document to the file of its run.

    When it returns, the document is on the disk. It raises if that fails: an exposure that cannot
    be recorded must not go on.

    Parameters
    ----------
    directory
        Folder of the journal; made if missing.

    Raises
    ------
    JournalError
        If the disk refuses, or a document holds a value that JSON has no form for, naming its place
        in the document.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._run_of: dict[str, str] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Append one document."""
        run_uid = self._run_uid(name, doc)
        line = {
            "n": self._counts[run_uid],
            "monotonic_s": time.monotonic(),
            "name": name,
            "doc": plain(doc, name),
        }
        self._append(run_uid, line)
        self._counts[run_uid] += 1
        if name == "stop":
            self._forget(run_uid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files of runs that are still open."""
        for run_uid in list(self._files):
            self._forget(run_uid)

    def _run_uid(self, name: str, doc: Mapping[str, Any]) -> str:
        """Find the run of a document, and remember a document that others will refer to."""
        if name == "start":
            run_uid = str(doc["uid"])
            self._open(run_uid)
            return run_uid
        reference = {
            "event": "descriptor",
            "event_page": "descriptor",
            "stream_datum": "descriptor",
            "datum": "resource",
            "datum_page": "resource",
        }.get(name, "run_start")
        parent = str(doc.get(reference))
        run_uid = parent if reference == "run_start" else self._run_of.get(parent, "")
        if run_uid not in self._files:
            raise JournalError(
                f"journal {self.directory}: a {name} document refers to {reference} {parent}, of "
                "which no open run knows; subscribe the journal before the run starts"
            )
        if name in ("descriptor", "resource", "stream_resource"):
            self._run_of[str(doc["uid"])] = run_uid
        return run_uid

    def _open(self, run_uid: str) -> None:
        path = self.directory / f"{run_uid}.jsonl"
        header = {
            "journal": JOURNAL_VERSION,
            "time": time.time(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "program": f"mistral-txm {version('mistral-txm')}",
        }
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._files[run_uid] = os.open(path, flags, 0o644)
            self._counts[run_uid] = 0
            self._append(run_uid, header)
            folder = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._refused(path, error) from error

    def _append(self, run_uid: str, line: Mapping[str, Any]) -> None:
        descriptor = self._files[run_uid]
        data = memoryview(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fdatasync(descriptor)
        except OSError as error:
            raise self._refused(self.directory / f"{run_uid}.jsonl", error) from error

    def _refused(self, path: Path, error: OSError) -> JournalError:
        advice = "free some space" if error.errno == errno.ENOSPC else "check the folder"
        return JournalError(
            f"journal {path}: not written ({error.strerror}); {advice}, then resume the series"
        )

    def _forget(self, run_uid: str) -> None:
        os.close(self._files.pop(run_uid))
        del self._counts[run_uid]
        for uid in [uid for uid, run in self._run_of.items() if run == run_uid]:
            del self._run_of[uid]


def plain(value: Any, where: str = "value") -> Any:
    """Return a value in the types that JSON knows, numbers and truth values with their type kept.

    numpy scalars become Python numbers, arrays become nested lists, complex numbers pairs, dates
    ISO 8601 texts, paths and bytes texts, enumerations their values.

    >>> import numpy as np
    >>> plain({"a": np.float32(0.5), "b": np.arange(2), "c": np.bool_(True), 7: (1, None)})
    {'a': 0.5, 'b': [0, 1], 'c': True, '7': [1, None]}

    Raises
    ------
    JournalError
        If there is no such form, naming the place in the document.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or type(value) in (bool, int, float, str):
        return value
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, np.datetime64):
        return str(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist(), where)
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    raise JournalError(
        f"{where} is a {type(value).__name__}, which cannot be recorded; give a number, a text, "
        "or a list of them"
    )


class JournalTail:
    """Reads one journal file as it grows: each document once, in the order of ``n``.

    Lines that come twice are dropped; lines that come out of order wait for those before them.

    Parameters
    ----------
    path
        The file; it must exist.

    Attributes
    ----------
    finished : bool
        Whether the stop document was returned: nothing more will come.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_uid = path.stem
        self.finished = False
        self.header: dict[str, Any] | None = None
        self._offset = 0
        self._next = 0
        self._waiting: dict[int, tuple[str, Document]] = {}
        self._unreadable = 0

    def read(self) -> Iterator[tuple[str, Document]]:
        """Yield the documents that were completed since the last call.

        A document counts as read when the one after it is asked for, or when the iterator ends.

        Raises
        ------
        JournalError
            If the file is not a journal, or one of another version.
        """
        yield from self._in_order()
        if not self.finished and self.path.stat().st_size > self._offset:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._take(line)
                    yield from self._in_order()

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError
            if self.header is None:
                self._check(entry)
                return
            number, name, doc = int(entry["n"]), str(entry["name"]), dict(entry["doc"])
        except (ValueError, KeyError, TypeError):
            if self.header is None:
                raise JournalError(
                    f"{self.path}: not a journal, its first line is no header"
                ) from None
            logger.error("%s: the line that ends at byte %d is unreadable", self.path, self._offset)
            self._unreadable += 1
            return
        if number >= self._next:
            self._waiting.setdefault(number, (name, doc))

    def _check(self, header: dict[str, Any]) -> None:
        found = header["journal"]
        if found != JOURNAL_VERSION:
            raise JournalError(
                f"{self.path}: journal version {found}, this program reads version "
                f"{JOURNAL_VERSION}; use the one that wrote it ({header.get('program', 'unknown')})"
            )
        self.header = header

    def _in_order(self) -> Iterator[tuple[str, Document]]:
        while self._waiting:
            if self._next not in self._waiting:
                lost = min(self._waiting) - self._next
                if lost > self._unreadable:
                    return
                self._unreadable -= lost
                self._next += lost
            name, doc = self._waiting.pop(self._next)
            self._next += 1
            self.finished = name == "stop"
            yield name, doc


def read_journal(path: Path) -> Iterator[tuple[str, Document]]:
    """Yield the documents of one run, ``(name, doc)``, in order, each once.

    A last line that was cut by a crash is left out.

    Raises
    ------
    JournalError
        If the file is not a journal, or one of another version.
    """
    yield from JournalTail(path).read()


def journal_files(directory: Path) -> list[Path]:
    """Return the journal files of a folder, the oldest run first; none if there is no folder.

    The order is that of the times in the headers; a file whose header is not yet complete comes
    last.
    """
    return _oldest_first(directory.glob("*.jsonl"))


def _oldest_first(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        with path.open("rb") as file:
            line = file.readline()
        try:
            started = float(json.loads(line)["time"])
        except (ValueError, KeyError, TypeError):
            started = float("inf")
        found.append((started, path.name, path))
    return [path for _, _, path in sorted(found)]


def follow(
    directory: Path, stop: threading.Event, poll_s: float = 0.05
) -> Iterator[tuple[str, str, Document]]:
    """Yield ``(run_uid, name, doc)`` of all runs, those there and those to come, until ``stop``.

    Each document comes exactly once, in order within its run; older runs come first. A follower
    that was restarted gets everything again from the start. A file that is no journal is reported
    once in the log and left out. What cannot be read, the folder or a file, is reported once, and
    read on when it can be: a share may be away for a moment.

    Parameters
    ----------
    directory
        Folder of the journal; it may be made later.
    stop
        Ends the iteration when set.
    poll_s
        Time between two looks at the sizes of the files, s.
    """
    tails: dict[str, JournalTail | None] = {}
    troubled: set[Path] = set()

    def note_trouble(path: Path, error: OSError) -> None:
        if path not in troubled:
            logger.error("%s: cannot be read (%s); tried again", path, error)
        troubled.add(path)

    while not stop.is_set():
        try:
            new = [entry for entry in _entries(directory) if entry.name not in tails]
            tails.update((path.name, JournalTail(path)) for path in _oldest_first(new))
            troubled.discard(directory)
        except OSError as error:
            note_trouble(directory, error)
        for file_name, tail in tails.items():
            if tail is None or tail.finished:
                continue
            try:
                for name, doc in tail.read():
                    yield tail.run_uid, name, doc
                    if stop.is_set():
                        return
                troubled.discard(tail.path)
            except JournalError as error:
                logger.error("%s", error)
                tails[file_name] = None
            except OSError as error:
                note_trouble(tail.path, error)
        stop.wait(poll_s)


def _entries(directory: Path) -> list[Path]:
    """Return the journal files by name alone; cheap enough to be asked often."""
    try:
        return [directory / name for name in os.listdir(directory) if name.endswith(".jsonl")]
    except FileNotFoundError:
        return []
