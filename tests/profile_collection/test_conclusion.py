"""What follows a simulated measurement waits for a live reconstruction that gets on, and for no other."""

import itertools
import time

import pytest

from mistral_txm.profile_collection import conclusion
from mistral_txm.profile_collection.acquire import MeasurementFailed
from mistral_txm.services.journal import JournalWriter
from mistral_txm.services.live_files import LIVE, STATUS, write_status

TIMEOUT_S = 0.3


class Live:
    """Publishes a new status whenever it is looked at."""

    log = "live.log"
    running = False

    def __init__(self, folder, statuses):
        self._folder, self._statuses = folder, iter(statuses)
        folder.mkdir(parents=True)

    def start(self):
        status = {**next(self._statuses), "updated_at": time.time()}
        write_status(self._folder / STATUS, status)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    monkeypatch.setattr(conclusion, "LIVE_TIMEOUT_S", TIMEOUT_S)
    monkeypatch.setattr(conclusion, "POLL_S", 0.02)
    with JournalWriter(tmp_path / "journal") as journal:
        keys = [[0.0, 0.0, 1, 1]]
        journal("start", {"uid": "run", "time": 1.0, "series": "film", "planned_keys": keys})
        journal("stop", {"uid": "end", "run_start": "run", "exit_status": "success"})

    def wait(statuses):
        live = Live(tmp_path / LIVE / "film", statuses)
        return conclusion._finished_live(tmp_path, "film", live)

    return wait


def test_who_reads_many_angles_is_waited_for_as_long_as_it_gets_on(finished):
    begin_s = time.monotonic()
    reading = ({"state": "following", "runs": {}, "message": f"{n} read"} for n in range(30))
    done = {"state": "complete", "runs": {"run": [0, 1]}}
    assert finished(itertools.chain(reading, itertools.repeat(done)))["state"] == "complete"
    assert time.monotonic() - begin_s > TIMEOUT_S


def test_who_does_not_get_on_is_given_up(finished):
    waits = {"state": "following", "runs": {}, "message": "a frame is damaged"}
    with pytest.raises(MeasurementFailed, match=r"did not get further for 0\.3 s; see live\.log"):
        finished(itertools.repeat(waits))
