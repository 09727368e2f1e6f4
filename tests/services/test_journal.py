"""The journal: what it writes, what it reads back, and what it survives."""

import datetime
import enum
import itertools
import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count
from ophyd.sim import det

from mistral_txm.services.journal import (
    JournalError,
    JournalTail,
    JournalWriter,
    follow,
    journal_files,
    plain,
    read_journal,
)


def documents(events: int, **start: Any) -> list[tuple[str, dict[str, Any]]]:
    run, descriptor = str(uuid.uuid4()), str(uuid.uuid4())
    return [
        ("start", {"uid": run, "time": 1.0, **start}),
        ("descriptor", {"uid": descriptor, "run_start": run, "name": "primary"}),
        *(
            ("event", {"uid": str(i), "descriptor": descriptor, "seq_num": i + 1})
            for i in range(events)
        ),
        ("stop", {"uid": str(uuid.uuid4()), "run_start": run}),
    ]


def write(directory: Path, docs: list[tuple[str, dict[str, Any]]]) -> Path:
    with JournalWriter(directory) as writer:
        for name, doc in docs:
            writer(name, doc)
    return directory / f"{docs[0][1]['uid']}.jsonl"


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    docs = documents(3, nested={"a": [1, 2.5, None, True, "ä"]})
    path = write(tmp_path, docs)
    assert list(read_journal(path)) == docs
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert header["journal"] == 1
    assert [line["n"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert all(a["monotonic_s"] <= b["monotonic_s"] for a, b in itertools.pairwise(lines))


def test_records_a_run_of_the_run_engine(tmp_path: Path) -> None:
    engine = RunEngine(context_managers=[])
    seen: list[tuple[str, Any]] = []
    engine.subscribe(JournalWriter(tmp_path))
    engine.subscribe(lambda name, doc: seen.append((name, doc)))
    (uid,) = engine(count([det], 3), operator="somebody")
    found = [list(pair) for pair in read_journal(tmp_path / f"{uid}.jsonl")]
    assert found == json.loads(json.dumps(seen))


class Colour(enum.Enum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.uint16(65535), 65535),
        (np.float32(0.25), 0.25),
        (np.float64(0.1), 0.1),
        (np.bool_(False), False),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), "a"),
        (np.array(4), 4),
        (np.arange(4, dtype=np.int8).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array([True, False]), [True, False]),
        (np.complex64(1 + 2j), [1.0, 2.0]),
        (np.datetime64("2026-11-20T12:00"), "2026-11-20T12:00"),
        (np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), [[1, 2.5]]),
        (np.ma.masked, None),
        (datetime.date(2026, 11, 20), "2026-11-20"),
        (Path("/a/b"), "/a/b"),
        (Colour.RED, 3),
        ((1, (2,)), [1, [2]]),
        ({np.int64(1): np.int64(2)}, {"1": 2}),
        (2**70, 2**70),
    ],
)
def test_types_of_numpy_and_others_are_kept(value: object, expected: object) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    assert json.loads(json.dumps(found)) == expected


def test_numbers_that_are_none_come_back(tmp_path: Path) -> None:
    path = write(tmp_path, documents(0, values=[np.nan, np.inf, -np.inf]))
    (_, start), *_ = read_journal(path)
    assert np.isnan(start["values"][0])
    assert start["values"][1:] == [np.inf, -np.inf]


def test_what_cannot_be_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"start\.sample\.holder\[1\] is a object"):
        write(tmp_path, [("start", {"uid": "a", "sample": {"holder": [1, object()]}})])


def test_a_document_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no open run knows"):
        JournalWriter(tmp_path)("event", {"descriptor": "nobody"})


def test_runs_inside_each_other_go_to_their_own_files(tmp_path: Path) -> None:
    outer, inner = documents(2), documents(1)
    with JournalWriter(tmp_path) as writer:
        for name, doc in [*outer[:3], *inner, *outer[3:]]:
            writer(name, doc)
    for docs in (outer, inner):
        assert list(read_journal(tmp_path / f"{docs[0][1]['uid']}.jsonl")) == docs


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    docs = documents(1)
    with JournalWriter(tmp_path) as writer:
        writer(*docs[0])
        descriptor = writer._files[docs[0][1]["uid"]]
        with open("/dev/full", "wb") as full:
            os.dup2(full.fileno(), descriptor)
        with pytest.raises(JournalError, match=r"No space left on device.*free some space"):
            writer(*docs[1])


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_cut_last_line_does_not_count(tmp_path: Path, cut: int) -> None:
    docs = documents(3)
    path = write(tmp_path, docs)
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read_journal(path)) == docs[:-1]


def test_a_cut_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    docs = documents(3)
    path = write(tmp_path, docs)
    whole = path.read_bytes()
    found = []
    path.write_bytes(b"")
    tail = JournalTail(path)
    for end in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:end])
        found += list(tail.read())
    path.write_bytes(whole)
    found += list(tail.read())
    assert found == docs
    assert tail.finished


def test_order_and_repetition_of_lines_do_not_matter(tmp_path: Path) -> None:
    docs = documents(6)
    path = write(tmp_path, docs)
    header, *lines = path.read_text().splitlines(keepends=True)
    rng = np.random.default_rng(0)
    mixed = [lines[i] for i in rng.permutation(len(lines) * 3) % len(lines)]
    path.write_text(header + "".join(mixed))
    assert list(read_journal(path)) == docs


def test_an_unreadable_line_is_reported_and_the_rest_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = documents(6)
    path = write(tmp_path, docs)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = b"\0" * 20 + b"\n"
    path.write_bytes(b"".join(lines))
    assert list(read_journal(path)) == docs[:3] + docs[4:]
    assert "unreadable" in caplog.text


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, documents(1))
    path.write_text(path.read_text().replace('"journal":1', '"journal":2', 1))
    with pytest.raises(JournalError, match="journal version 2, this program reads version 1"):
        list(read_journal(path))


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("hello\n")
    with pytest.raises(JournalError, match="not a journal"):
        list(read_journal(path))


def test_files_are_listed_by_age(tmp_path: Path) -> None:
    paths = [write(tmp_path, documents(0)) for _ in range(4)]
    assert journal_files(tmp_path) == paths
    assert journal_files(tmp_path / "nothing") == []


def test_follow_gives_each_document_once_and_finds_new_files(tmp_path: Path) -> None:
    before, during = documents(3), documents(20)
    directory = tmp_path / "journal"
    stop = threading.Event()
    found: list[tuple[str, str, Any]] = []

    def read() -> None:
        for item in follow(directory, stop, poll_s=0.001):
            found.append(item)
            if len(found) == len(before) + len(during):
                stop.set()

    reader = threading.Thread(target=read)
    reader.start()
    write(directory, before)
    with JournalWriter(directory) as writer:
        for name, doc in during:
            writer(name, doc)
            time.sleep(0.001)
    reader.join(5.0)
    assert not reader.is_alive()
    for docs in (before, during):
        uid = docs[0][1]["uid"]
        assert [(name, doc) for run, name, doc in found if run == uid] == docs


def test_follow_survives_a_bad_file_and_replays_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = documents(2)
    (tmp_path / "bad.jsonl").write_text('{"time": 0}\n')
    write(tmp_path, docs)
    for _ in range(2):
        stop = threading.Event()
        found = []
        for item in follow(tmp_path, stop, poll_s=0.001):
            found.append(item[1:])
            if len(found) == len(docs):
                stop.set()
        assert found == docs
    assert "not a journal" in caplog.text


class Scripted(threading.Event):
    """Set after the last of some things were done, one at each wait."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        super().__init__()
        self.steps = iter(steps)

    def wait(self, timeout: float | None = None) -> bool:
        next(self.steps, self.set)()
        return self.is_set()


def test_follow_loses_nothing_where_the_folder_is_away_for_a_moment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, away = tmp_path / "journal", tmp_path / "away"
    first, second, third = documents(4), documents(1), documents(1)
    path = write(directory, first)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])  # its stop is still to come

    def replaced() -> None:  # neither listing nor reading says that there is nothing
        directory.rename(away)
        directory.touch()

    def back() -> None:
        directory.unlink()
        away.rename(directory)
        write(directory, second)

    def gone() -> None:
        directory.rename(away)

    def back_again() -> None:
        away.rename(directory)
        path.write_bytes(whole)
        write(directory, third)

    def look() -> None:
        pass

    stop = Scripted(replaced, look, back, gone, look, back_again, replaced, look)
    found = [(name, doc) for _, name, doc in follow(directory, stop)]
    assert found == [*first[:-1], *second, first[-1], *third]
    # Once each time: what was finished is not looked at, and a folder that is not there has no files.
    assert [record.args[0] for record in caplog.records] == [directory, path, path, directory]


def test_follow_finds_new_runs_beside_a_file_that_cannot_be_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = documents(1), documents(1)
    path = write(tmp_path, first)
    cut = path.read_bytes()[:-40]
    path.write_bytes(cut)

    def unreadable() -> None:
        path.rename(tmp_path / "kept")
        path.symlink_to(path)
        write(tmp_path, second)

    def readable() -> None:
        path.unlink()
        (tmp_path / "kept").rename(path)

    stop = Scripted(unreadable, lambda: None, readable)
    found = [(name, doc) for _, name, doc in follow(tmp_path, stop)]
    assert found == [*first[:-1], *second]
    assert len(caplog.records) == 1
