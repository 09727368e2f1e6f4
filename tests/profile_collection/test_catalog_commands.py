"""What `status` and `runs` print of rejected and waived exposures, energies, and the log of a run."""

import json
import re

import pytest

from mistral_txm.profile_collection.command_line import main
from mistral_txm.services import catalog
from mistral_txm.services.journal import JournalWriter

KEYS = [(0.0, -5.0, 1, repeat) for repeat in range(4)]


class Entry(dict):
    """A run as the catalog has it, without streams."""

    def __init__(self, start):
        self.metadata = {"start": start, "stop": {"exit_status": "success"}}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Four exposures planned, two taken of which one was rejected, one waived."""
    journal = JournalWriter(tmp_path / "journal")
    (tmp_path / "frames.h5").touch()
    starts = [
        {
            "uid": "taken",
            "time": 1000.0,
            "plan_name": "vector_tomography",
            "series": "film",
            "phi_deg": 0.5,
            "energy_ev": 707.4,
            "sample": {"name": "a film"},
            "planned_keys": [[0.0, -5.0, 1, 4]],
        },
        {
            "uid": "given-back",
            "time": 2000.0,
            "plan_name": "reject",
            "series": "film",
            "rejected_keys": [list(KEYS[1])],
            "reason": "the film slipped\nby a micrometre",
        },
    ]
    columns = {"primary": "key_phi_deg", "log": "log_text", "waived": "waived_phi_deg"}
    journal("start", starts[0])
    for name, column in columns.items():
        stream = {"uid": name, "run_start": "taken", "name": name}
        journal("descriptor", stream | {"data_keys": {column: {}}})
    resource = {"uid": "file", "run_start": "taken", "uri": f"file://localhost{tmp_path}/frames.h5"}
    journal("stream_resource", resource | {"parameters": {"dataset": "frames"}})

    def event(stream, number, values):
        place = {
            "uid": f"{stream}{number}",
            "descriptor": stream,
            "seq_num": number,
            "time": 1500.0,
        }
        journal("event", place | {"data": values})

    for number, key in enumerate(KEYS[:2], 1):
        numbers = {"start": number, "stop": number + 1}
        datum = {"uid": f"d{number}", "stream_resource": "file", "descriptor": "primary"}
        journal("stream_datum", datum | {"seq_nums": numbers})
        read = {
            "theta": -5.0,
            "polarization": 1,
            "ccd_frame_number": number,
            "ccd_frame_crc32": number,
            "ccd_exposure_s": 1.0,
            "ring_current": 250.0,
            "ccd_saturated_fraction": 0.0,
        }
        names = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat")
        event("primary", number, read | dict(zip(names, key, strict=True)))
    event("log", 1, {"log_kind": "pause", "log_text": "no light: the beam was lost"})
    names = ("waived_phi_deg", "waived_theta_deg", "waived_helicity", "waived_repeat")
    event("waived", 1, dict(zip(names, KEYS[3], strict=True)))
    for start in starts:
        if start["plan_name"] == "reject":
            journal("start", start)
        stop = {"uid": f"stop-{start['uid']}", "run_start": start["uid"]}
        journal("stop", stop | {"exit_status": "success"})
    runs = {start["uid"]: Entry(start) for start in starts}
    monkeypatch.setattr(catalog, "open_catalog", lambda data: runs)
    return tmp_path


def printed(capsys, *arguments):
    assert main([str(one) for one in arguments]) == 0
    return capsys.readouterr().out


def test_status_says_what_is_rejected_and_needed_again(data, capsys):
    assert printed(capsys, "status", "--data", data) == (
        "series film: interrupted, 1 of 4 exposures accepted, 3 missing (1 of them rejected), "
        "0 repeated, 0 damaged\n"
        "  next: phi 0 deg, theta -5 deg, helicity +1, repeat 2\n"
    )
    assert json.loads(printed(capsys, "status", "--data", data, "--json")) == {
        "series": [
            {
                "uid": "film",
                "planned": 4,
                "accepted": 1,
                "missing": 3,
                "repeated": 0,
                "damaged": 0,
                "state": "interrupted",
                "next": "phi 0 deg, theta -5 deg, helicity +1, repeat 2",
            }
        ]
    }


def test_runs_are_listed_with_energy_and_reason(data, capsys):
    lines = printed(capsys, "runs", "--data", data).splitlines()
    head, taken, rejection = ([*re.split(r"  +", line.strip())] for line in lines)
    assert head[3:] == ["plan", "phi", "energy", "sample", "exposures", "ended"]
    assert taken[3:] == ["vector_tomography", "0.5 deg", "707.4 eV", "a film", "2", "success"]
    assert rejection[3:] == ["reject", "1 rejected", "success: the film slipped"]
    runs = json.loads(printed(capsys, "runs", "list", "--data", data, "--json"))["runs"]
    assert [run["energy_ev"] for run in runs] == [707.4, None]
    assert [run["rejected"] for run in runs] == [0, 1]


def test_a_run_is_shown_with_its_log(data, capsys):
    *_, line = printed(capsys, "runs", "show", "taken", "--data", data).splitlines()
    assert re.fullmatch(r"  [-\d]{10} [:\d]{8} pause: no light: the beam was lost", line)
    shown = json.loads(printed(capsys, "runs", "show", "taken", "--data", data, "--json"))
    entry = {"time": 1500.0, "kind": "pause", "text": "no light: the beam was lost"}
    assert shown["log"] == [entry]


def test_a_rejection_is_shown_with_its_reason(data, capsys):
    first, second = printed(capsys, "runs", "show", "given", "--data", data).splitlines()
    assert first == "run given-back: reject, series film, 1 exposures rejected, the film slipped"
    assert second == "  ended: success"
