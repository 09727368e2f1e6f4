"""What follows a simulated measurement waits for a live reconstruction that gets on, and for no other."""

import itertools
from types import SimpleNamespace

import pytest

from mistral_txm.profile_collection import conclusion
from mistral_txm.profile_collection.acquire import MeasurementFailed
from mistral_txm.services.journal import JournalWriter
from mistral_txm.services.live_files import LIVE, STATUS, write_status


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Waits for a live reconstruction that publishes a new status whenever somebody sleeps."""
    with JournalWriter(tmp_path / "journal") as journal:
        keys = [[0.0, 0.0, 1, 1]]
        journal("start", {"uid": "run", "time": 1.0, "series": "film", "planned_keys": keys})
        journal("stop", {"uid": "end", "run_start": "run", "exit_status": "success"})
    (folder := tmp_path / LIVE / "film").mkdir(parents=True)
    clock = SimpleNamespace(now_s=0.0, monotonic=lambda: clock.now_s)

    def wait(statuses):
        coming = iter(statuses)

        def sleep(_):
            clock.now_s += 0.5 * conclusion.LIVE_TIMEOUT_S
            write_status(folder / STATUS, {**next(coming), "updated_at": clock.now_s})

        clock.sleep = sleep
        monkeypatch.setattr(conclusion, "time", clock)
        return conclusion._finished_live(tmp_path, "film")

    return wait


def test_who_reads_many_angles_is_waited_for_as_long_as_it_gets_on(finished):
    reading = ({"state": "following", "runs": {}, "message": f"{n} read"} for n in range(30))
    done = {"state": "complete", "runs": {"run": [0, 1]}}
    assert finished(itertools.chain(reading, itertools.repeat(done)))["state"] == "complete"


def test_who_does_not_get_on_is_given_up(finished):
    waits = {"state": "following", "runs": {}, "message": "a frame is damaged"}
    with pytest.raises(MeasurementFailed, match=r"did not get further for 600 s; see .*live\.log"):
        finished(itertools.repeat(waits))
