"""Exposures told by a damaged journal: what it does not say is missing, once said, and nobody fails over it."""

import json

import pytest

from mistral_txm.devices.key import Key
from mistral_txm.services.live import LiveReconstruction
from mistral_txm.services.runs import list_runs
from mistral_txm.services.verification import read_series, series_states

KEYS = [Key(0.0, theta, helicity, 0) for theta in (-20.0, 20.0) for helicity in (1, -1)]


@pytest.fixture
def series(tmp_path, written_series):
    return written_series(tmp_path, azimuths_deg=(0.0,), tilts_deg=(-20.0, 20.0), repeats=1)


def spoil(series, which, damage):
    """Record a run with one line of its journal damaged, the first that is ``which``."""
    path = series.record(series.run(0.0))
    lines = path.read_text().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if n and which(json.loads(line)))
    lines[number] = damage(lines[number])
    path.write_text("".join(lines))


def is_of(name, uid):
    return lambda line: line["name"] == name and line["doc"]["uid"].endswith(uid)


LOST = [
    (is_of("stream_resource", "20_+1"), [KEYS[0]]),
    (is_of("stream_datum", "-20_+1/0"), [KEYS[0]]),
    (is_of("event", "primary-1"), [KEYS[0]]),
    (is_of("descriptor", "-primary"), KEYS),
    (is_of("stream_resource", "-flat+1-0"), []),
]


@pytest.mark.parametrize(("which", "missing"), LOST)
def test_what_an_unreadable_line_told_of_is_missing(series, which, missing, caplog):
    spoil(series, which, lambda line: "#" * (len(line) - 1) + "\n")
    (record,) = read_series(series.data)
    assert list(record.standing().missing) == missing
    assert len([one for one in caplog.records if one.name.endswith("services.exposures")]) <= 1
    assert [state.missing for state in series_states(series.data)] == [len(missing)]


@pytest.mark.parametrize(
    ("which", "word"),
    [
        (is_of("stream_resource", "20_+1"), "parameters"),
        (is_of("stream_resource", "20_+1"), "file:"),
        (is_of("stream_datum", "-20_+1/0"), "start"),
        (is_of("event", "primary-1"), "ccd_frame_crc32"),
    ],
)
def test_what_a_line_tells_wrongly_is_missing_and_said_in_one_line(series, which, word, caplog):
    spoil(series, which, lambda line: line.replace(word, f"{word[:-1]}#"))
    (record,) = read_series(series.data)
    assert list(record.standing().missing) == KEYS[:1]
    (said,) = [one.getMessage() for one in caplog.records]
    assert said.startswith("run written-run1: ")
    assert said.endswith("`resume` takes it again")
    assert "\n" not in said


def test_a_run_without_a_start_stops_nobody(series):
    spoil(series, lambda line: line["name"] == "start", lambda line: "#\n")
    assert list_runs(series.data) == []
    assert read_series(series.data) == []


def test_who_follows_goes_on(series):
    documents = series.run(0.0)
    lost = next(entry for entry in documents if entry[1]["uid"].endswith("20_+1"))
    live = LiveReconstruction(series.data)
    for name, doc in documents:
        if doc is not lost[1]:
            live.add("written-run1", name, doc)
