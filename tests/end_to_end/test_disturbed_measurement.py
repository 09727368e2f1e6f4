"""A measurement that loses beam, frames and its process, and is resumed: its data equal those of an undisturbed one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    script = Path(__file__).with_name("measure_disturbed.py")
    done = subprocess.run(
        [sys.executable, str(script), "--data", str(tmp_path_factory.mktemp("disturbed"))],
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout, done.stderr[-5000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_exposure_equals_that_of_the_undisturbed_measurement(result: dict[str, Any]) -> None:
    assert result["planned"] == 2 * 4 * 2 * 2
    assert result["equal"] == result["planned"]
    assert result["returns"] == 2 * 2
    assert result["returns_are_equal"]


def test_it_is_complete_and_nothing_was_exposed_in_vain(result: dict[str, Any]) -> None:
    assert result["missing"] == result["damaged"] == 0
    assert result["repeated"] == 0
    frames = result["frames"]
    assert frames["asked"] == frames["taken"] == frames["in_catalog"] == result["planned"]


def test_the_killed_run_has_no_end_and_the_others_succeed(result: dict[str, Any]) -> None:
    assert sorted(result["ends"]) == ["no stop document", "success", "success"]


def test_each_disturbance_is_in_the_log_and_an_undisturbed_measurement_tells_of_none(
    result: dict[str, Any],
) -> None:
    assert result["not_in_log"] == []
    assert result["quiet_log"] == []
