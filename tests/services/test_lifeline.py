"""Helper processes: ready lines, orderly ends, and no survivor of a killed parent."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from mistral_txm.services.lifeline import ServiceError, ServiceProcess

HELPER = """
import json, os, signal, sys, threading, time
from mistral_txm.services.lifeline import watch_parent
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "--lifeline" in sys.argv:
    watch_parent(grace_s=0.3)
if "--fail" in sys.argv:
    sys.exit("no beam today")
if "--silent" not in sys.argv:
    print(json.dumps({"ready": True, "pid": os.getpid()}), flush=True)
if "--chatty" in sys.argv:
    print("more", flush=True)
time.sleep(60)
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be run as a helper."""
    (tmp_path / "a_helper.py").write_text(HELPER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_helper"


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_gone(pid: int, timeout_s: float = 60.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    return not alive(pid)


def test_ready_line_and_orderly_stop(helper: str, tmp_path: Path) -> None:
    process = ServiceProcess(helper, ["--chatty", "--lifeline"], log=tmp_path / "logs" / "a.log")
    assert not process.running
    with process:
        ready = process.wait_ready(120.0)
        assert ready == {"ready": True, "pid": process.process_id}
        assert process.wait_ready(0.0) == ready
        assert process.running
        with pytest.raises(ServiceError, match="already running"):
            process.start()
        deadline_s = time.monotonic() + 120
        while not process.log.stat().st_size and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert wait_gone(ready["pid"])
    process.stop()
    assert (tmp_path / "logs" / "a.log").read_text() == "more\n"


def test_it_can_be_started_again(helper: str, tmp_path: Path) -> None:
    process = ServiceProcess(helper, ["--lifeline"], log=tmp_path / "a.log")
    pids = set()
    for _ in range(2):
        with process:
            pids.add(process.wait_ready(120.0)["pid"])
    assert len(pids) == 2


def test_a_helper_that_fails_says_why(helper: str, tmp_path: Path) -> None:
    with (
        ServiceProcess(helper, ["--fail"], log=tmp_path / "a.log") as process,
        pytest.raises(
            ServiceError, match=r"exit code 1 .*a\.log ends with: no beam today"
        ) as error,
    ):
        process.wait_ready(120.0)
    assert "\n" not in str(error.value)


def test_a_helper_that_is_never_ready_is_stopped(helper: str, tmp_path: Path) -> None:
    with ServiceProcess(helper, ["--silent", "--lifeline"], log=tmp_path / "a.log") as process:
        pid = process.process_id
        with pytest.raises(ServiceError, match=r"not ready after 0.2 s"):
            process.wait_ready(0.2)
    assert pid is not None
    assert wait_gone(pid)


def test_a_helper_that_ignores_the_signal_is_killed(helper: str, tmp_path: Path) -> None:
    process = ServiceProcess(helper, ["--stubborn"], log=tmp_path / "a.log")
    process.start()
    pid = process.wait_ready(120.0)["pid"]
    process.stop(timeout_s=0.2)
    assert wait_gone(pid)


@pytest.mark.parametrize("options", [["--lifeline"], ["--lifeline", "--stubborn"]])
def test_no_helper_outlives_a_killed_parent(
    helper: str, tmp_path: Path, options: list[str]
) -> None:
    parent = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from mistral_txm.services.lifeline import ServiceProcess
        process = ServiceProcess({helper!r}, {options!r}, log=Path({str(tmp_path / "a.log")!r}))
        process.start()
        print(process.wait_ready(120.0)["pid"], flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        process.send_signal(signal.SIGKILL)
    assert wait_gone(pid)


def test_ctrl_c_in_the_terminal_does_not_reach_the_helper(helper: str, tmp_path: Path) -> None:
    with ServiceProcess(helper, ["--lifeline"], log=tmp_path / "a.log") as process:
        pid = process.wait_ready(120.0)["pid"]
        assert os.getpgid(pid) == pid != os.getpgrp()
