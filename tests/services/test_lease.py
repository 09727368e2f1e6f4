"""One acquisition per data folder, also after a holder that was killed."""

import json
import os
import signal
import subprocess
import sys

import pytest

from mistral_txm.services.lease import LeaseError, acquiring, acquisition_lease

HOLD = """
import sys, time
from pathlib import Path
from mistral_txm.services.lease import acquisition_lease
with acquisition_lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_where_and_since_when(tmp_path, holder):
    with pytest.raises(LeaseError) as refused, acquisition_lease(tmp_path):
        pass
    message = str(refused.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert f"process {holder.pid}, since 20" in message
    assert acquiring(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_leaves_no_lease_behind(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert not acquiring(tmp_path)
    with acquisition_lease(tmp_path):
        assert acquiring(tmp_path)
    assert not acquiring(tmp_path)


def test_another_data_folder_is_free(tmp_path, holder):
    with acquisition_lease(tmp_path / "other" / "folder"):
        assert acquiring(tmp_path / "other" / "folder")


def test_the_same_process_cannot_hold_it_twice_and_keeps_its_own(tmp_path):
    with acquisition_lease(tmp_path):
        with pytest.raises(LeaseError, match=f"process {os.getpid()}"), acquisition_lease(tmp_path):
            pass
        assert acquiring(tmp_path)


def test_it_is_given_back_after_a_failure(tmp_path):
    with pytest.raises(KeyError), acquisition_lease(tmp_path):
        raise KeyError
    assert not acquiring(tmp_path)


def test_a_holder_that_is_gone_is_not_asked_for_its_lock(tmp_path):
    with acquisition_lease(tmp_path):
        pass
    path = tmp_path / "acquisition.lease"
    left = json.loads(path.read_text())
    path.write_text(json.dumps(left | {"pid": 2**22 + 1}))  # above any process id
    assert not acquiring(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"host": "here"}'])
def test_a_lease_that_says_nothing_is_no_acquisition_and_no_obstacle(tmp_path, text):
    (tmp_path / "acquisition.lease").write_text(text)
    assert not acquiring(tmp_path)
    with acquisition_lease(tmp_path):
        pass


def test_a_holder_that_has_not_written_its_name_is_refused_all_the_same(tmp_path, holder):
    (tmp_path / "acquisition.lease").write_text("")
    with pytest.raises(LeaseError, match="has not written its name"), acquisition_lease(tmp_path):
        pass


def test_no_folder_no_acquisition(tmp_path):
    assert not acquiring(tmp_path / "nowhere")


def test_a_helper_process_does_not_inherit_it(tmp_path):
    with acquisition_lease(tmp_path):
        helper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not acquiring(tmp_path)
        with acquisition_lease(tmp_path):
            pass
    finally:
        helper.communicate(b"\n", timeout=120)
