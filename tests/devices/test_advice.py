"""Advice that is there is read; whatever else lies in its place says nothing."""

import json
import math
import time

import pytest

from mistral_txm.devices.advice import Advice
from mistral_txm.devices.advice_file import OLDEST_S

GOOD = {
    "flags": [{"kind": "focus", "text": "theta 3 deg:\nblurred"}, {"text": "slipped"}],
    "reached": True,
    "resolution_nm": 41.5,
    "judged_until": 1.7e9,
}


@pytest.fixture
def advice(tmp_path):
    (tmp_path / "s").mkdir()
    return Advice(name="advice", live_directory=tmp_path)


def told(advice):
    advice.set("s").wait(1.0)
    return advice.flags.get(), advice.reached.get(), advice.resolution_nm.get()


def put(tmp_path, contents):
    (tmp_path / "s" / "advice.json").write_bytes(
        contents if isinstance(contents, bytes) else json.dumps(contents).encode()
    )


def test_good_advice_is_one_line_for_each_flag(tmp_path, advice):
    put(tmp_path, GOOD | {"updated_at": time.time()})
    assert told(advice) == ("theta 3 deg: blurred\nslipped", 1, 41.5)
    assert advice.updated_at.get() == pytest.approx(time.time(), abs=60.0)
    assert advice.judged_until.get() == 1.7e9
    put(tmp_path, GOOD | {"updated_at": time.time(), "judged_until": None})
    assert told(advice)[1:] == (1, 41.5)
    assert math.isnan(advice.judged_until.get())


@pytest.mark.parametrize(
    "contents",
    [
        None,
        b"",
        b"\xff\x00",
        b"[" * 100_000,
        b"[]",
        b" " * 2_000_000,
        GOOD,
        GOOD | {"updated_at": time.time() - OLDEST_S - 60},
        GOOD | {"updated_at": "now"},
        GOOD | {"updated_at": float("nan")},
        {"updated_at": 1e400},
        GOOD | {"flags": 3, "updated_at": time.time() + 60},
        GOOD | {"flags": [3], "updated_at": time.time() + 60},
        GOOD | {"resolution_nm": [1], "updated_at": time.time() + 60},
        GOOD | {"judged_until": "now", "updated_at": time.time() + 60},
    ],
)
def test_what_is_missing_old_or_damaged_says_nothing(tmp_path, advice, contents):
    put(tmp_path, GOOD | {"updated_at": time.time()})
    told(advice)
    (tmp_path / "s" / "advice.json").unlink()
    if contents is not None:
        put(tmp_path, contents)
    flags, reached, resolution_nm = told(advice)
    assert (flags, reached) == ("", 0)
    assert math.isnan(resolution_nm)
    assert math.isnan(advice.updated_at.get())
