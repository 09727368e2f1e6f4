"""A helper process that has ended runs again, and is told of; one that cannot run is not started without end."""

import logging
import os
import signal
import threading
from pathlib import Path

import pytest

from mistral_txm.services import keeper
from mistral_txm.services.lifeline import ServiceProcess

HELPER = """
import json, os, sys, time
from pathlib import Path
from mistral_txm.services.lifeline import watch_parent
watch_parent()
began = Path(sys.argv[0]).with_name("began")
began.write_text(began.read_text() + "x" if began.exists() else "x")
if "--once" in sys.argv and len(began.read_text()) > 1:
    sys.exit("no memory left")
print(json.dumps({"ready": True, "uri": "http://here/"}), flush=True)
time.sleep(60)
"""


class Told(logging.Handler):
    """Waits for a line of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.came.set()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(keeper, "POLL_S", 0.02)
    found = Told()
    monkeypatch.setattr(keeper.logger, "handlers", [found])
    return found


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the helper notes how often it has begun."""
    (tmp_path / "a_helper.py").write_text(HELPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "began"


def test_who_was_killed_runs_again_until_the_end(begun: Path, told: Told) -> None:
    process = ServiceProcess("a_helper", [], log=begun.with_name("a.log"))
    with process:
        process.wait_ready(120.0)
        with keeper.kept_running({"live": process}):
            first = process.process_id
            os.kill(first, signal.SIGKILL)
            assert told.came.wait(120.0)
            assert process.running
            assert process.process_id != first
        os.kill(process.process_id, signal.SIGKILL)
    assert told.lines == [f"live: had ended, runs again at http://here/; see {process.log}"]
    assert begun.read_text() == "xx"
    assert "keeper" not in {thread.name for thread in threading.enumerate()}


def test_who_ends_at_once_is_left_alone_for_a_while(
    begun: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "AGAIN_S", 0.5)
    process = ServiceProcess("a_helper", ["--once"], log=begun.with_name("a.log"))
    with process:
        process.wait_ready(120.0)
        with keeper.kept_running({"live": process}):
            os.kill(process.process_id, signal.SIGKILL)
            for _ in range(2):
                assert told.came.wait(120.0)
                told.came.clear()
    assert len(told.lines) == 2
    assert all("live: had ended, and did not start again: " in line for line in told.lines)
    assert all("no memory left" in line for line in told.lines)
    assert len(begun.read_text()) == 3
