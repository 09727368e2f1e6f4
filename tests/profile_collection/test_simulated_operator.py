"""The people of a simulated measurement: what takes the light is over after a while."""

import threading
from types import SimpleNamespace

import pytest
from ophyd import Signal

from mistral_txm.profile_collection.simulated_operator import DARK, restoring_light


@pytest.fixture
def faults():
    return SimpleNamespace(**{name: Signal(name=name, value=0) for name in DARK})


def over(signal):
    """Wait until a fault is off; it is put off by a thread."""
    off = threading.Event()
    signal.subscribe(lambda value, **_: off.set() if not value else None)
    return off.wait(120)


@pytest.mark.parametrize("name", DARK)
def test_light_that_was_lost_comes_back(faults, name, caplog):
    caplog.set_level("INFO")
    fault = getattr(faults, name)
    with restoring_light(faults, after_s=0.0):
        fault.put(1)
        assert over(fault)
    assert f"{name} is over" in caplog.text


def test_light_that_was_lost_before_comes_back(faults):
    faults.beam_dump.put(1)
    with restoring_light(faults, after_s=0.0):
        assert over(faults.beam_dump)


def test_nothing_comes_back_afterwards(faults):
    with restoring_light(faults, after_s=60.0):
        faults.beam_dump.put(1)
    faults.front_end_closed.put(1)
    assert (faults.beam_dump.get(), faults.front_end_closed.get()) == (1, 1)
    assert not [
        each
        for each in threading.enumerate()
        if isinstance(each, threading.Timer) and not each.finished.is_set()
    ]
