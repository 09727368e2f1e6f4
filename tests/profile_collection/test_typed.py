"""What is typed at the prompt: its help, and what is said of a mistake."""

import inspect
from types import SimpleNamespace

import pytest
from bluesky import Msg

from mistral_txm.plans import PlanError, load_measurement, small, survey, vector_tomography
from mistral_txm.profile_collection.engine import Engine, why_no_plan
from mistral_txm.profile_collection.typed import typed

INSTRUMENT = SimpleNamespace(configuration=None)


@pytest.fixture
def tomography():
    """What arrives where `vector_tomography` is typed."""
    return typed(lambda *arguments, **options: (arguments, options), vector_tomography)


def test_signature_and_help_are_those_of_the_plan_without_what_the_session_adds():
    mosaic = typed(lambda *_, **__: None, survey.mosaic, without=("instrument",), example="RE(it)")
    whole = inspect.signature(survey.mosaic)
    assert list(inspect.signature(mosaic).parameters) == list(whole.parameters)[1:]
    defaults = {name: each.default for name, each in whole.parameters.items()}
    for name, each in inspect.signature(mosaic).parameters.items():
        assert each.default == defaults[name]
    text = inspect.getdoc(mosaic)
    assert text.splitlines()[2] == "    RE(it)"
    assert "width_um, height_um" in text
    assert "The devices." not in text


def test_a_measurement_is_given_by_its_name_too(tomography):
    (instrument, measurement), options = tomography(INSTRUMENT, "small", series="film")
    assert (instrument, measurement, options) == (INSTRUMENT, small(), {"series": "film"})


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((small(),), "vector_tomography: the instrument comes first: RE(vector_tomography("),
        ((), "vector_tomography: the instrument comes first: RE(vector_tomography("),
        ((small(), INSTRUMENT), "vector_tomography: the instrument comes first"),
        ((INSTRUMENT,), "missing a required argument: 'measurement'; help(vector_tomography) says"),
        (
            (INSTRUMENT, 3),
            "3 is no measurement; type a file ('film.toml'), or one of medium, paper",
        ),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_type(tomography, arguments, line):
    with pytest.raises(PlanError) as refusal:
        tomography(*arguments)
    assert line in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "RE: nothing to run"),
        (small(), "RE: a measurement says what to take; to take it: RE(vector_tomography("),
        (load_measurement, "RE: load_measurement lacks its parentheses: RE(load_measurement(...))"),
        ("film.toml", "RE: 'film.toml' is no plan"),
        (("uid",), "RE: ('uid',) is no plan"),
    ],
)
def test_what_is_no_plan_is_refused_and_nothing_runs(value, line):
    RE = Engine({}, context_managers=[])
    with pytest.raises(PlanError) as refusal:
        RE(value)
    assert str(refusal.value).startswith(line)
    assert RE.state == "idle"
    assert RE([Msg("null")]) == ()


def test_a_generator_is_a_plan():
    assert why_no_plan(Msg("null") for _ in range(1)) == ""
