"""A file is held by one at a time; who only looks is not in the way."""

import fcntl
import threading

import pytest

from mistral_txm.services.held_file import held_file, is_held
from mistral_txm.services.json_files import read_json, write_json


def test_the_second_is_refused_until_the_first_lets_go(tmp_path):
    path = tmp_path / "lock"
    assert not is_held(path)
    with held_file(path, AssertionError):
        assert is_held(path)
        with pytest.raises(LookupError), held_file(path, LookupError):
            pass
        assert is_held(path)
    assert not is_held(path)
    with held_file(path, AssertionError):
        pass


def test_what_goes_wrong_while_it_is_held_is_told_as_it_is(tmp_path):
    with pytest.raises(BlockingIOError), held_file(tmp_path / "lock", AssertionError):
        raise BlockingIOError


def test_with_patience_it_outlasts_one_who_looks(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        with pytest.raises(LookupError), held_file(path, LookupError):
            pass
        away = threading.Timer(0.1, fcntl.flock, (looked_at, fcntl.LOCK_UN))
        away.start()
        with held_file(path, AssertionError, patience_s=60.0):
            pass
        away.join()


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_a_json_file_that_says_nothing_is_empty(tmp_path, text):
    path = tmp_path / "said.json"
    assert read_json(path) == {}
    path.write_text(text, encoding="latin-1")
    assert read_json(path) == {}
    write_json(path, {"pid": 1})
    assert read_json(path) == {"pid": 1}
    assert list(tmp_path.iterdir()) == [path]
