"""`mistral-txm plan`: what it takes for a measurement, and what it prints."""

import json

import pytest

from mistral_txm.devices.configuration import SIMULATED
from mistral_txm.plans.measurement import PRESETS
from mistral_txm.profile_collection.command_line import main


@pytest.fixture
def plan(capsys, tmp_path):
    """Run `plan`, and return exit code, stdout and stderr."""

    def run(*arguments):
        code = main(["plan", "--data", str(tmp_path / "data"), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "options",
    [
        ("--measurement", PRESETS / "medium.toml"),
        ("--measurement", "medium"),
        ("--config", PRESETS / "medium.toml"),
        ("--config", PRESETS / "medium.toml", "--config", SIMULATED),
        ("--config", SIMULATED, "--size", "medium"),
    ],
)
def test_a_measurement_is_a_file_or_a_name(plan, options):
    code, out, err = plan("--summary", "--json", *options)
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert summary["exposures"] == 2 * 87 * 2 * 3
    dose = (25 * 8 + 40 * 12 + 22 * 20) * 3 / (25 * 15 * 8 + 40 * 20 * 12 + 22 * 20 * 20)
    assert summary["dose_relative_to_the_paper"] == pytest.approx(dose, abs=0.001)


def test_a_free_way_is_told(plan):
    assert plan("--check") == (0, "nothing stands in the way\n", "")
    code, out, _ = plan("--check", "--json")
    assert (code, json.loads(out)) == (0, {"problems": []})


def test_every_problem_is_a_line(plan, tmp_path):
    text = (PRESETS / "small.toml").read_text()
    file = tmp_path / "steep.toml"
    file.write_text(text.replace("first_deg = -55.0", "first_deg = -85.0"))
    code, out, err = plan("--check", "--measurement", file)
    assert (code, out) == (3, "")
    problem, count = err.splitlines()
    assert problem.startswith("theta: -85 deg is planned")
    assert count.endswith("1 things stand in the way of this measurement")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--measurement", "nonsense"), "no such measurement; give a TOML file, or one of medium"),
        (("--measurement", "small", "--config", PRESETS / "medium.toml"), "a second measurement"),
        (("--config", SIMULATED, "--config", SIMULATED), "a second configuration"),
        (("--measurement", SIMULATED), "unknown key"),
    ],
)
def test_what_cannot_be_used_is_one_line(plan, options, words):
    code, out, err = plan("--summary", *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
