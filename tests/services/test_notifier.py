"""A person is told once of what must not wait, in one line, also when the notifier or the command fails meanwhile."""

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mistral_txm.services.held_file import held_file
from mistral_txm.services.journal import JournalWriter
from mistral_txm.services.notifier import RETRY_S, STATE, TRIES, Notifier, command_of, notify

DESCRIPTOR = {"uid": "said", "run_start": "", "name": "log", "data_keys": {"log_text": {}}}


class Listener:
    """Hears lines, or does not, at a time that stands still."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.heard: list[str] = []
        self.deaf = False
        self.now_s = 1000.0
        self.begin()

    def begin(self) -> None:
        """Start a new notifier, as after a restart."""
        self.notifier = Notifier(self.data, self.hear, 60.0, lambda: self.now_s)

    def hear(self, line: str) -> bool:
        if not self.deaf:
            self.heard.append(line)
        return not self.deaf

    def after(self, seconds: float = 0.0) -> list[str]:
        """Let time pass, look, and return what was heard since the last time."""
        self.notifier.step()
        self.now_s += seconds
        self.notifier.step()
        heard, self.heard = self.heard, []
        return heard


class Talking:
    """A run whose log grows."""

    def __init__(self, data: Path, start: dict[str, Any]) -> None:
        self.journal = JournalWriter(data / "journal")
        self.uid = start["uid"]
        self.count = 0
        self.journal("start", start)
        self.journal("descriptor", DESCRIPTOR | {"run_start": self.uid})

    def say(self, kind: str, text: str) -> None:
        self.count += 1
        event = {"uid": f"{self.uid}{self.count}", "descriptor": "said", "seq_num": self.count}
        self.journal(
            "event",
            event | {"time": 10.0 * self.count, "data": {"log_kind": kind, "log_text": text}},
        )


@pytest.fixture
def listener(tmp_path: Path) -> Listener:
    return Listener(tmp_path)


@pytest.fixture
def run(tmp_path: Path, listener: Listener) -> Talking:
    start = {"uid": "run", "time": 1.0, "sample": {"name": "film"}, "phi_deg": 102.0}
    return Talking(tmp_path, start)


def test_a_flag_is_told_at_once_and_once(listener: Listener, run: Talking) -> None:
    run.say("flag", "out of focus")
    run.say("note", "a coffee")
    assert listener.after() == ["film, phi 102 deg: out of focus"]
    assert listener.after(1000.0) == []
    listener.begin()
    assert listener.after(1000.0) == []


def test_only_what_lasts_is_told_and_again_when_it_comes_again(
    listener: Listener, run: Talking
) -> None:
    run.say("wait", "no light")
    assert listener.after(59.0) == []
    run.say("go_on", "light")
    assert listener.after(1000.0) == []
    run.say("pause", "check the jaw")
    assert listener.after(61.0) == ["film, phi 102 deg paused: check the jaw"]
    assert listener.after(1000.0) == []
    listener.begin()
    assert listener.after(1000.0) == []
    run.say("go_on", "resumed")
    run.say("pause", "check the jaw")
    assert listener.after(61.0) == ["film, phi 102 deg paused: check the jaw"]


def test_what_was_before_the_first_start_is_not_told(tmp_path: Path) -> None:
    run = Talking(tmp_path, {"uid": "run", "time": 1.0, "plan_name": "count"})
    run.say("flag", "long ago")
    listener = Listener(tmp_path)
    assert listener.after() == []
    run.say("flag", "now")
    assert listener.after() == ["count: now"]


def test_what_happened_while_it_was_away_is_told_later(listener: Listener, run: Talking) -> None:
    assert listener.after() == []
    run.say("flag", "one")
    listener.begin()
    assert listener.after() == ["film, phi 102 deg: one"]


def test_what_does_not_get_through_is_tried_again_and_given_up(
    listener: Listener, run: Talking, caplog: pytest.LogCaptureFixture
) -> None:
    listener.deaf = True
    run.say("flag", "one")
    run.say("flag", "two")
    assert listener.after() == []
    listener.begin()  # what is not told yet survives
    listener.deaf = False
    assert listener.after() == ["film, phi 102 deg: one", "film, phi 102 deg: two"]
    listener.deaf = True
    run.say("flag", "three")
    for _ in range(TRIES):
        assert listener.after(RETRY_S) == []
    assert "given up: film, phi 102 deg: three" in caplog.text
    listener.deaf = False
    assert listener.after(RETRY_S) == []


def test_the_ends_of_runs(listener: Listener, written_series: Any, tmp_path: Path) -> None:
    series = written_series(tmp_path)
    first, *rest = [series.run(0.0, keys=[(0.0, -40.0, 1, 0)]), series.run(0.0), series.run(102.0)]
    first[-1][1].update(exit_status="abort", reason="the operator\nwent home")
    series.record(first)
    said = "uniform film, phi 0 deg: the run has ended (abort): the operator went home; `resume` takes the 23 exposures"
    (heard,) = listener.after()
    assert heard.startswith(said)
    series.record(rest[0])
    assert listener.after() == [
        "uniform film, phi 0 deg: this azimuth is done; rotate the sample now, to phi 102 deg"
    ]
    series.record(rest[1])
    assert listener.after() == ["uniform film, phi 102 deg: the series is complete, 24 exposures"]


def test_a_damaged_state_begins_anew(listener: Listener, run: Talking) -> None:
    run.say("flag", "one")
    assert len(listener.after()) == 1
    (listener.data / STATE).write_text("{")
    listener.begin()
    assert listener.after() == []
    assert json.loads((listener.data / STATE).read_text())["lines"] == []


def test_the_command_gets_the_line_and_no_shell_sees_it(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    program = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + sys.argv[2])"
    tell = command_of([sys.executable, "-c", program, str(heard), "{}"])
    assert tell("pause; $(rm -r /)")
    assert heard.read_text() == "pause; $(rm -r /)\npause; $(rm -r /)"
    assert not command_of([sys.executable, "-c", "raise SystemExit(1)"])("line")
    assert not command_of([str(tmp_path / "missing")])("line")


def test_a_second_notifier_is_refused(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    notify(tmp_path, [], 60.0, stop)
    with (
        held_file(tmp_path / "notified.json.lock", AssertionError),
        pytest.raises(RuntimeError, match="somebody is notified already"),
    ):
        notify(tmp_path, [], 60.0, stop)
