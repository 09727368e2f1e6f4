"""A whole small demo, run once by the command that an operator types, and shared by the tests that look at it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "mistral_txm.profile_collection.command_line"]


@dataclass(frozen=True)
class Demo:
    """A finished demo."""

    data: Path
    summary: dict[str, Any]
    messages: str


def mistral_txm(*arguments: object, timeout_s: float = 900.0) -> "subprocess.CompletedProcess[str]":
    """Run the command as a person would."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def processes_about(text: str) -> list[str]:
    """Return the command lines of running processes that mention a text."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in command and int(number) != os.getpid():
            found.append(command)
    return found


@pytest.fixture(scope="session", name="processes_about")
def processes_about_fixture() -> Any:
    return processes_about


@pytest.fixture(scope="session")
def run() -> Any:
    return mistral_txm


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Continuous integration has made one already (`.ci/run`), and names its folder."""
    if made := os.environ.get("MISTRAL_TXM_DEMO"):
        return Demo(Path(made), json.loads((Path(made) / "summary.json").read_text()), "")
    data = tmp_path_factory.mktemp("Messung für alle")
    done = mistral_txm("demo", "--output", data, "--seed", 3, "--json")
    assert done.returncode == 0, done.stderr
    return Demo(data, json.loads(done.stdout), done.stderr)
