"""A person is told once of what must not wait, in one line, also when the notifier or the command fails meanwhile."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mistral_txm.reconstruction.files import FileError
from mistral_txm.services import notifier
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
        "uniform film, phi 0 deg: this azimuth is done; 12 exposures are left, phi 102 deg is next"
    ]
    series.record(rest[1])
    assert listener.after() == ["uniform film, phi 102 deg: the series is complete, 24 exposures"]


def test_the_sample_is_to_be_turned_when_that_is_asked_and_not_before(
    listener: Listener, written_series: Any, tmp_path: Path
) -> None:
    """The run of one edge ends while the other edge, or another sample of the holder, is still to be measured."""
    series = written_series(tmp_path)
    first = series.run(0.0)
    edges = {"series": "s", "energies_ev": [707.4, 778.1], "order": "in_turn"}
    first[0][1].update(edges=edges, energy_ev=707.4)
    series.record(first)
    (line,) = listener.after(1000.0)
    assert line.startswith("uniform film, phi 0 deg, 707.4 eV: this azimuth is done; 12 exposures")
    for uid in ("question", "question after a resume"):
        asks = Talking(tmp_path, {"uid": uid, "time": 2e9, "plan_name": "turn_sample"})
        asks.say("ask", "turn the sample to phi = 102 deg (it was at 0 deg)")
        assert listener.after(59.0) == []
        listener.begin()
        told = "turn_sample asks: turn the sample to phi = 102 deg (it was at 0 deg)"
        assert listener.after(61.0) == [told]
        listener.begin()
        assert listener.after(1000.0) == []
        asks.say("go_on", "the sample stands at phi = 102 deg")
        assert listener.after(1000.0) == []


def test_a_state_that_cannot_be_written_keeps_nothing_from_being_told(
    listener: Listener,
    run: Talking,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        raise FileError(f"{path}: cannot be written: No space left on device")
        yield path

    with monkeypatch.context() as patched:
        patched.setattr(notifier, "replaced_when_complete", full)
        run.say("flag", "one")
        assert listener.after() == ["film, phi 102 deg: one"]
        run.say("flag", "two")
        assert listener.after() == ["film, phi 102 deg: two"]
    assert caplog.text.count("No space left on device") == 1
    assert listener.after() == []
    listener.begin()
    assert listener.after() == []
    with monkeypatch.context() as patched:
        patched.setattr(notifier, "replaced_when_complete", full)
        run.say("flag", "three")
        listener.after()
    assert caplog.text.count("No space left on device") == 2


def test_a_share_that_is_away_for_a_moment_loses_nothing(
    listener: Listener, run: Talking, caplog: pytest.LogCaptureFixture
) -> None:
    listener.after()
    folder, away = listener.data / "journal", listener.data / "away"
    (path,) = folder.iterdir()
    path.rename(listener.data / path.name)
    assert listener.after(5.0) == []
    (listener.data / path.name).rename(path)
    run.say("flag", "one")
    assert listener.after() == ["film, phi 102 deg: one"]
    folder.rename(away)
    folder.touch()  # what stands in its place is no folder
    assert listener.after(5.0) == []
    folder.unlink()
    away.rename(folder)
    run.say("flag", "two")
    assert listener.after() == ["film, phi 102 deg: two"]
    assert caplog.text.count("No such file") == 1


def test_a_journal_of_another_version_keeps_no_end_from_being_told(
    listener: Listener, written_series: Any, tmp_path: Path
) -> None:
    series = written_series(tmp_path)
    series.record(series.run(0.0))
    assert len(listener.after()) == 1
    (tmp_path / "journal" / "other.jsonl").write_text('{"journal": 2, "time": 1.0}\n')
    aborted = series.run(102.0)
    aborted[-1][1].update(exit_status="abort", reason="the operator went home")
    series.record(aborted)
    series.record(series.run(102.0))
    assert listener.after() == [
        "uniform film, phi 102 deg: the run has ended (abort): the operator went home; "
        "what is left could not be read",
        "uniform film, phi 102 deg: the run has ended; what is left could not be read",
    ]


def test_a_line_of_another_shape_is_passed_over(listener: Listener, run: Talking) -> None:
    event = {"uid": "odd", "descriptor": "said", "seq_num": 1, "time": 1.0, "data": {}}
    run.journal("event", event)
    run.say("flag", "one")
    assert listener.after() == ["film, phi 102 deg: one"]


def test_a_restart_works_out_no_end_that_was_told(
    listener: Listener, written_series: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = written_series(tmp_path)
    for phi_deg in (0.0, 102.0):
        series.record(series.run(phi_deg))
    assert len(listener.after()) == 2
    monkeypatch.setattr(notifier, "read_series", lambda *_: pytest.fail("read again"))
    listener.begin()
    assert listener.after(1000.0) == []


def test_a_line_that_was_told_but_not_noted_is_told_again(listener: Listener, run: Talking) -> None:
    """`kill -9` between the two: at least once."""
    assert listener.after() == []
    run.say("flag", "one")
    heard = listener.hear

    def hear_and_die(line: str) -> bool:
        heard(line)
        raise SystemExit

    listener.hear = hear_and_die  # type: ignore[method-assign]
    listener.begin()
    with pytest.raises(SystemExit):
        listener.notifier.step()
    listener.hear = heard  # type: ignore[method-assign]
    listener.begin()
    assert listener.after() == 2 * ["film, phi 102 deg: one"]
    listener.begin()
    assert listener.after() == []


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


@pytest.mark.parametrize("code", [0, 1])
def test_what_the_command_says_in_another_encoding_is_no_failure_of_its_own(
    code: int, caplog: pytest.LogCaptureFixture
) -> None:
    says = f"import sys; sys.stderr.buffer.write(b'gr\\xfc\\xdfe an @'); raise SystemExit({code})"
    assert command_of([sys.executable, "-c", says])("line") is (code == 0)
    assert caplog.text.count("an @") == code


def test_a_line_that_no_process_can_be_given_is_told_without_what_is_in_the_way(
    listener: Listener, run: Talking, tmp_path: Path
) -> None:
    """NUL stands in no argument of a process, a half of a surrogate pair in no text; a journal may hold both."""
    heard = tmp_path / "heard"
    program = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n')"
    notifier = Notifier(
        listener.data, command_of([sys.executable, "-c", program, str(heard), "{}"])
    )
    notifier.step()
    for text in ("nul \0", "half \ud83d", "well"):
        run.say("flag", text)
    notifier.step()
    film = "film, phi 102 deg:"
    assert heard.read_text().splitlines() == [f"{film} nul", f"{film} half ?", f"{film} well"]


def test_a_line_that_no_terminal_can_show_is_printed_as_far_as_it_can_be(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    class Once(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return True

    state = {"told": {}, "waits_told": {}, "lines": [{"text": "half \ud83d", "tries": 0}]}
    (tmp_path / STATE).write_text(json.dumps(state))
    notify(tmp_path, [], 60.0, Once())
    assert capsysbinary.readouterr().out == b"half ?\n"


def test_a_second_notifier_is_refused(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    notify(tmp_path, [], 60.0, stop)
    with (
        held_file(tmp_path / "notified.json.lock", AssertionError),
        pytest.raises(RuntimeError, match="somebody is notified already"),
    ):
        notify(tmp_path, [], 60.0, stop)
