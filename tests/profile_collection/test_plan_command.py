"""`mistral-txm plan`: what it takes for a measurement, and what it prints."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from bluesky import RunEngine
from pydantic import BaseModel

from mistral_txm import plans
from mistral_txm.devices.configuration import SIMULATED
from mistral_txm.plans import Measurement, load_measurement
from mistral_txm.plans.measurement import PRESETS
from mistral_txm.profile_collection.command_line import main
from mistral_txm.profile_collection.preflight import Preflight


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
    dose = (25 * 8 + 40 * 12 + 22 * 20 + 8) * 3 / (25 * 15 * 8 + 40 * 20 * 12 + 22 * 20 * 20)
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
    assert count.endswith("1 thing stands in the way of this measurement")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--measurement", "nonsense"), "no such measurement; give a TOML file, or one of medium"),
        (("--measurement", "small", "--config", PRESETS / "medium.toml"), "a second measurement"),
        (("--config", SIMULATED, "--config", SIMULATED), "a second configuration"),
        (("--measurement", SIMULATED), "is a beamline configuration, expected a measurement"),
    ],
)
def test_what_cannot_be_used_is_one_line(plan, options, words):
    code, out, err = plan("--summary", *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "plan-a-measurement.md"


def keys_of(model):
    """All keys of a section and of those below it."""
    found = set()
    for name, field in model.model_fields.items():
        below = [field.annotation, *get_args(field.annotation)]
        below += [each for inner in below for each in get_args(inner)]
        sections = [
            each for each in below if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        found |= {name}.union(*(keys_of(each) for each in sections))
    return found


def test_the_page_explains_every_key(tmp_path, plan):
    """The file on the page is a measurement, and has all keys but those that hold at one energy alone."""
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
    file = tmp_path / "page.toml"
    file.write_text(text)
    assert load_measurement(file).edges == "interleaved"
    keys = set(re.findall(r"^(?:\[+(?:\w+\.)?)?(\w+)", text, re.M))
    assert keys_of(Measurement) - keys == {"focus", "positive_um", "negative_um"}
    assert "`[focus]` with `positive_um` and `negative_um`" in PAGE.read_text()
    code, out, _ = plan("--check", "--config", file)
    assert (code, out) == (0, "nothing stands in the way\n")


def test_the_commands_on_the_page_work(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    mistral-txm (.*)$", PAGE.read_text(), re.M)
    assert len(commands) == 2
    for command in commands:
        assert main(command.split()) == 0
    out = capsys.readouterr().out
    assert out.endswith("nothing stands in the way\n")


@pytest.mark.slow
def test_what_is_typed_at_the_prompt_works(instrument, simulated_beamline, capsys):
    preflight = Preflight(instrument, simulated_beamline.data, {}, {})
    instrument.azimuth.set(0.0)
    names = {
        **{name: getattr(plans, name) for name in plans.__all__},
        **preflight.names,
        "RE": RunEngine({}, context_managers=[]),
        "instrument": instrument,
    }
    typed = re.findall(
        r"^    (?!mistral-txm)(.*)$", PAGE.read_text().split("## At the prompt")[1], re.M
    )
    assert len(typed) == 5
    for line in typed:
        exec(line, names)
    out = capsys.readouterr().out
    assert out.count("nothing stands in the way\n") == 3, out
    assert "exposures: 276 sample, " in out
