import logging
import threading
from types import SimpleNamespace

import bluesky.plan_stubs as bps
import pytest
import tomli_w
from bluesky import RunEngine
from bluesky_queueserver.manager.profile_ops import (
    existing_plans_and_devices_from_nspace,
    load_allowed_plans_and_devices,
    load_user_group_permissions,
    validate_plan,
)

from mistral_txm import plans
from mistral_txm.plans import Measurement, PlanError, small
from mistral_txm.plans.steps import manifest
from mistral_txm.profile_collection import startup
from mistral_txm.profile_collection.queue_plans import described, queue_plans
from mistral_txm.services.journal import JournalWriter

SCAN = {"exposure_s": 2.0, "repeats": 2, "flat_exposure_s": 1.0, "flat_repeats": 2}
TILTED_TOO_FAR = {
    **small().to_dict(),
    "flats": {"exposure_s": 3.0, "repeats": 2, "theta_deg": 80.0},
}


@pytest.fixture(scope="module")
def allowed():
    """What the queue server makes of the plans, and of the permissions."""
    plans = queue_plans(SimpleNamespace(instrument=None))
    existing, devices, _, _ = existing_plans_and_devices_from_nspace(nspace=dict(plans))
    permissions = load_user_group_permissions(f"{startup.__path__[0]}/user_group_permissions.yaml")
    allowed, _ = load_allowed_plans_and_devices(
        existing_plans=existing, existing_devices=devices, user_group_permissions=permissions
    )
    return allowed["primary"]


def verdict(allowed, name, **parameters):
    """Return what is said of an item that is added: nothing, or one line and the item."""
    item = {"item_type": "plan", "name": name, "kwargs": parameters}
    good, message = validate_plan(item, allowed_plans=allowed, allowed_devices={})
    assert good is (message == "")
    return message.split("\nPlan: ")[0].removeprefix("Plan validation failed: ")


def test_a_person_finds_these_plans_with_a_description_of_each_parameter(allowed):
    assert sorted(allowed) == [
        "energy_scan",
        "focus_series",
        "measure",
        "reject_angle",
        "resume_series",
        "retake_angle",
        "snapshot",
        "turn_sample",
    ]
    for plan in allowed.values():
        assert plan["description"]
        assert [one["name"] for one in plan["parameters"] if not one.get("description")] == []
        assert [one["name"] for one in plan["parameters"] if not one.get("annotation")] == []


def test_a_measurement_is_a_preset_a_file_or_its_description(allowed, tmp_path):
    file = tmp_path / "film.toml"
    file.write_text(tomli_w.dumps(small().to_dict()))
    for measurement in ("small", str(file), small().to_dict()):
        assert described(measurement) == small()
        assert verdict(allowed, "measure", measurement=measurement, series="film") == ""


@pytest.mark.parametrize(
    ("measurement", "line"),
    [
        ("smal", "measurement: smal: no such measurement; give a TOML file, or one of "),
        ({**small().to_dict(), "flat": {}}, "measurement: unknown key 'flat'; the nearest valid"),
        ({}, "measurement: "),
        (TILTED_TOO_FAR, "measurement: theta: 80 deg is planned, but can be reached only from"),
    ],
)
def test_a_wrong_measurement_is_refused_in_one_line_when_it_is_added(allowed, measurement, line):
    said = verdict(allowed, "measure", measurement=measurement)
    assert said.startswith(line)
    assert "\n" not in said


def test_a_file_that_is_wrong_is_refused_with_its_name(allowed, tmp_path):
    file = tmp_path / "film.toml"
    file.write_text("sample = 3")
    said = verdict(allowed, "measure", measurement=str(file))
    assert said.startswith(f"measurement: {file}")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("measure", {}),
        ("measure", {"measurement": 3}),
        ("measure", {"measurement": "small", "serie": "film"}),
        ("retake_angle", {"phi_deg": 0.0, "theta_deg": 91.0}),
        ("retake_angle", {"phi_deg": 0.0, "theta_deg": 0.0, "helicity": 2}),
        ("turn_sample", {"phi_deg": "102"}),
        ("snapshot", {"exposure_s": 0}),
        ("energy_scan", {**SCAN, "energies_ev": 707.4}),
        ("energy_scan", {**SCAN, "energies_ev": [707.4], "flat_repeats": 1}),
        ("focus_series", {**SCAN, "helicity": 1, "z_um": ["1"]}),
        ("focus_series", {**SCAN, "helicity": 1, "z_um": [-2, -1, 0, 1, 2], "repeats": 1}),
    ],
)
def test_parameters_of_a_wrong_kind_or_size_are_refused_when_they_are_added(
    allowed, name, parameters
):
    assert verdict(allowed, name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resume_series", {}),
        ("retake_angle", {"phi_deg": 0, "theta_deg": -55.0, "helicity": -1, "series": "film"}),
        ("turn_sample", {"phi_deg": 102}),
        ("snapshot", {}),
        ("energy_scan", {**SCAN, "energies_ev": [700, 707.4]}),
        ("focus_series", {**SCAN, "helicity": -1, "z_um": [-2, -1, 0, 1.5, 2]}),
    ],
)
def test_right_parameters_are_taken(allowed, name, parameters):
    assert verdict(allowed, name, **parameters) == ""


FILM = Measurement.from_dict(
    {
        "sample": {"name": "film"},
        "tilts": [{"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 8.0, "repeats": 1}],
        "azimuths_deg": [0.0],
        "energies_ev": [707.4],
        "flats": {"exposure_s": 3.0, "repeats": 1},
        "darks": {"repeats": 1},
    }
)
KEYS = FILM.planned_keys()


class Begun:
    """A session with one series of the film; it notes what is asked of it, and in which thread."""

    def __init__(self, data, taken):
        self.instrument, self.data = None, data
        self.asked = []
        with JournalWriter(data / "journal") as journal:
            start = {
                "uid": "run",
                "time": 1.0,
                "series": "film",
                "energy_ev": 707.4,
                "measurement": FILM.to_dict(),
                "planned_keys": manifest(FILM),
                "plan_name": "vector_tomography",
            }
            for name, doc in (("start", start), *exposed("run", taken, data)):
                journal(name, doc)

    def _plan(self, name):
        def make(*arguments, **options):
            self.asked.append((name, arguments, options, threading.current_thread()))
            return bps.null()

        return make

    def __getattr__(self, name):
        return self._plan(name)


def exposed(run_uid, keys, data):
    """Yield the documents of exposures in an empty file: a journal is read without their frames."""
    if not keys:
        return
    names = ("phi_deg", "theta_deg", "helicity", "repeat")
    columns = {f"key_{name}": {} for name in names}
    yield (
        "descriptor",
        {"uid": "d", "run_start": run_uid, "name": "primary", "data_keys": columns, "time": 1.0},
    )
    parameters = {"dataset": "/frames"}
    (data / "frames.h5").touch()
    uri = f"file://localhost{data}/frames.h5"
    yield (
        "stream_resource",
        {"uid": "r", "run_start": run_uid, "uri": uri, "parameters": parameters},
    )
    for number, key in enumerate(keys):
        ends = {"start": number + 1, "stop": number + 2}
        datum = {"uid": f"r/{number}", "stream_resource": "r", "descriptor": "d", "seq_nums": ends}
        yield "stream_datum", {**datum, "indices": {"start": number, "stop": number + 1}}
        data = {f"key_{name}": value for name, value in zip(names, key, strict=True)}
        data |= {"theta": key.theta_deg, "polarization": key.helicity, "ring_current": 250.0}
        data |= {"ccd_frame_number": number, "ccd_frame_crc32": 1, "ccd_exposure_s": 8.0}
        data |= {"ccd_saturated_fraction": 0.0}
        yield (
            "event",
            {
                "uid": f"e{number}",
                "descriptor": "d",
                "seq_num": number + 1,
                "time": 2.0,
                "data": data,
            },
        )


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """Make the plans of a data folder in which so many exposures of a series were taken; and run them."""

    def make(taken):
        session = Begun(tmp_path, KEYS[:taken])
        started = []
        monkeypatch.setattr(
            plans, "vector_tomography", lambda *_, series: started.append(series) or bps.null()
        )
        made = queue_plans(session)

        def run(name, *arguments, **options):
            RunEngine({}, context_managers=[])(made[name](*arguments, **options))
            return [(name, arguments) for name, arguments, *_ in session.asked], started

        return SimpleNamespace(session=session, run=run)

    return make


def test_the_name_of_a_series_is_not_taken_for_another_measurement(begun):
    other = Measurement.from_dict({**FILM.to_dict(), "first_helicity": -1})
    with pytest.raises(PlanError, match="series film: is another measurement"):
        begun(1).run("measure", other.to_dict(), "film")


@pytest.mark.parametrize("series", ["film", ""])
def test_a_measurement_that_was_cut_goes_on(begun, series):
    assert begun(1).run("measure", FILM.to_dict(), series) == ([("resume", ("film",))], [])


def test_a_finished_series_is_not_measured_again_but_told(begun, caplog):
    caplog.set_level(logging.INFO)
    assert begun(2).run("measure", FILM.to_dict(), "film") == ([], [])
    assert [each.message for each in caplog.records if "film" in each.message] == [
        "series film: is complete, nothing is taken"
    ]


def test_without_a_name_a_finished_measurement_is_a_new_series(begun):
    assert begun(2).run("measure", FILM.to_dict()) == ([], [None])


def test_without_a_name_another_measurement_is_a_new_series(begun):
    other = Measurement.from_dict({**FILM.to_dict(), "first_helicity": -1})
    assert begun(1).run("measure", other.to_dict()) == ([], [None])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resume_series", ()),
        ("retake_angle", (0.0, 0.0)),
        ("reject_angle", (0.0, 0.0, "sample moved")),
    ],
)
def test_data_are_read_beside_the_engine(begun, name, arguments):
    """In the engine's own thread it would neither pause nor keep its devices in sight."""
    made = begun(1)
    made.run(name, *arguments)
    ((_, _, _, thread),) = made.session.asked
    assert not any(word in thread.name for word in ("Main", "bluesky-run-engine"))
