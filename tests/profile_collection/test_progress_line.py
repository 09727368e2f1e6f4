"""The line that shows a measurement while the RunEngine runs it: what it shows, and when it shows nothing."""

import io
import threading
from contextlib import contextmanager

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.plans import small
from mistral_txm.profile_collection import progress
from mistral_txm.profile_collection.progress import ProgressLine
from mistral_txm.services.journal import JournalWriter

WAIT_S = 60.0
START = {
    "series": "s",
    "planned_keys": [[0.0, -12.5, 1, 2]],
    "n_planned": 2,
    "phi_deg": 0.0,
    "energy_ev": 707.4,
    "measurement": small().to_dict(),
}
EXPOSED = {
    "key_phi_deg": 0.0,
    "key_theta_deg": -12.5,
    "key_helicity": 1,
    "key_repeat": 0,
    "polarization": 1,
    "ccd_exposure_s": 1.0,
}


class Screen(io.StringIO):
    """A terminal that tells when a line was shown."""

    def __init__(self):
        super().__init__()
        self.shown = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        if "%" in text:
            self.shown.set()
        return super().write(text)


class Plan:
    """What a RunEngine runs while the line is there."""

    def __init__(self, data):
        self.screen = Screen()
        self.looks = threading.Semaphore(0)
        self._journal = JournalWriter(data / "journal")
        self._line = ProgressLine(data, load_configuration(), self._look, self.screen)

    def _look(self):
        self.looks.release()
        return ""

    @contextmanager
    def runs(self):
        with self._line:
            yield

    def begin(self, uid, **start):
        self._journal("start", {"uid": uid, **start})
        self._journal("descriptor", {"uid": f"{uid} primary", "run_start": uid, "name": "primary"})

    def expose(self, uid):
        self._journal("event", {"descriptor": f"{uid} primary", "data": EXPOSED})

    def end(self, uid):
        self._journal("stop", {"run_start": uid})

    def shown(self):
        """Wait for the next line."""
        self.screen.shown.clear()
        assert self.screen.shown.wait(WAIT_S)
        return self.screen.getvalue().rpartition("\x1b[K")[2]

    def has_looked(self):
        """Wait until everything that was written before has been read, and something could have been shown."""
        while self.looks.acquire(blocking=False):
            pass
        for _ in range(3):
            assert self.looks.acquire(timeout=WAIT_S)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL_S", 0.0)
    monkeypatch.setattr(progress, "POLL_S", 0.001)
    return Plan(tmp_path)


def test_nothing_of_the_last_series_is_shown_in_a_plan_that_is_none(plan):
    with plan.runs():
        plan.begin("a", **START)
        plan.expose("a")
        plan.has_looked()
        assert "theta -12.5 deg (1/1), helicity +1, repeat 1/2, 50 %" in plan.shown()
        plan.end("a")
    before = plan.screen.getvalue()
    with plan.runs():
        plan.begin("mosaic", plan_name="mosaic")
        plan.expose("mosaic")
        plan.has_looked()
        plan.end("mosaic")
    assert plan.screen.getvalue() == before


def test_nothing_of_a_series_is_shown_in_what_comes_after_it_in_the_same_plan(plan):
    with plan.runs():
        plan.begin("a", **START)
        plan.shown()
        plan.end("a")
        plan.begin("mosaic", plan_name="mosaic")
        plan.has_looked()
        before = plan.screen.getvalue()
        plan.has_looked()
        assert plan.screen.getvalue() == before
        plan.end("mosaic")


def test_a_plan_that_was_paused_goes_on_with_its_line(plan):
    with plan.runs():
        plan.begin("a", **START)
        plan.expose("a")
        plan.shown()
    with plan.runs():
        plan.has_looked()
        assert "repeat 1/2, 50 %" in plan.shown()
        plan.end("a")


def test_what_was_done_in_an_earlier_plan_is_known_of_the_series(plan):
    with plan.runs():
        plan.begin("a", **START)
        plan.expose("a")
        plan.end("a")
    with plan.runs():
        plan.begin("b", **START)
        plan.has_looked()
        assert plan.shown() == "flats and darks, 50 %"
        plan.end("b")


def test_a_line_that_is_too_long_for_the_screen_is_cut_at_its_begin(plan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "22")
    with plan.runs():
        plan.begin("a", **START)
        plan.expose("a")
        plan.has_looked()
        assert plan.shown() == "\N{HORIZONTAL ELLIPSIS}+1, repeat 1/2, 50 %"
        plan.end("a")
