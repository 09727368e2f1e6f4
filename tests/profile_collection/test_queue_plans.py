from types import SimpleNamespace

import pytest
import tomli_w
from bluesky_queueserver.manager.profile_ops import (
    existing_plans_and_devices_from_nspace,
    load_allowed_plans_and_devices,
    load_user_group_permissions,
    validate_plan,
)

from mistral_txm.plans import Measurement, PlanError, small
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


@pytest.fixture
def plans(tmp_path):
    """The plans of a data folder that has the beginning of one series."""
    measurement = small()
    with JournalWriter(tmp_path / "journal") as journal:
        start = {
            "uid": "run",
            "time": 1.0,
            "series": "film",
            "energy_ev": 707.4,
            "measurement": measurement.to_dict(),
            "planned_keys": [[0.0, -55.0, 1, 3]],
            "plan_name": "vector_tomography",
        }
        journal("start", start)
    return queue_plans(SimpleNamespace(instrument=None, data=tmp_path))


def test_the_name_of_a_series_is_not_taken_for_another_measurement(plans):
    other = Measurement.from_dict({**small().to_dict(), "first_helicity": -1})
    with pytest.raises(PlanError, match="series film: is another measurement"):
        next(plans["measure"](other.to_dict(), "film"))
