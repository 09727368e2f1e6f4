"""What would stop a measurement on its way: limits, approach, focus, and a holder that touches."""

import math

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.plans.checks import PlanError, check_metadata, check_positions
from mistral_txm.plans.measurement import Focus, Measurement, Place

CONFIGURATION = load_configuration()


def tilted(tiny: Measurement, most_deg: float, place: Place | None = None) -> Measurement:
    """Tilts between two angles, of a sample at a place."""
    ends = {"first_deg": -most_deg, "last_deg": most_deg, "step_deg": 2 * most_deg}
    sample = tiny.sample.model_copy(update={"place": place})
    return tiny.model_copy(
        update={"tilts": (tiny.tilts[0].model_copy(update=ends),), "sample": sample}
    )


def is_refused(measurement: Measurement) -> str:
    try:
        check_positions(CONFIGURATION, measurement)
    except PlanError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize(
    ("x_um", "z_um", "most_deg"),
    [
        (1500.0, 0.0, math.degrees(math.asin(2000 / 3000))),  # 3000 sin = 2000
        (-1500.0, 0.0, math.degrees(math.asin(2000 / 3000))),
        (1000.0, 0.0, math.degrees(math.asin(2000 / 2500))),
        # 2500 sin + 500 cos = sqrt(2500^2 + 500^2) sin(theta + atan(500 / 2500)) = 2000
        (
            1000.0,
            -500.0,
            math.degrees(math.asin(2000 / math.hypot(2500, 500)) - math.atan(500 / 2500)),
        ),
    ],
)
def test_the_holder_turns_as_far_as_there_is_room(
    tiny: Measurement, x_um: float, z_um: float, most_deg: float
) -> None:
    place = Place(x_um=x_um, y_um=0.0, z_um=z_um)
    assert is_refused(tilted(tiny, most_deg - 0.01, place)) == ""
    refusal = is_refused(tilted(tiny, most_deg + 0.01, place))
    assert "along the beam, 2000 um are free" in refusal
    assert len(refusal.splitlines()) == 1


def test_a_sample_on_the_axis_never_touches(tiny: Measurement) -> None:
    assert is_refused(tilted(tiny, 69.5)) == ""


def test_what_is_on_the_way_between_a_view_and_flats_counts(tiny: Measurement) -> None:
    """Flats at 60 deg: with the sample at x = 900 um, which needs 2400 sin 60 = 2078 um on the way out."""
    place = Place(x_um=900.0, y_um=0.0, z_um=0.0)
    flats = tiny.flats.model_copy(update={"theta_deg": 60.0})
    steep = tilted(tiny, 30.0, place).model_copy(update={"flats": flats})
    assert "at 60 deg the holder would reach 2078 um" in is_refused(steep)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"energies_ev": (271.0,)}, "energy: 271 eV is planned, but can be reached only from 272"),
        ({"energies_ev": (2601.0,)}, "to 2600 eV"),
        ({"energies_ev": (707.4, 1100.0)}, "zone_plate_z: 1189.58 um is planned"),
        ({"focus": Focus(positive_um=1001.0, negative_um=0.0)}, "zone_plate_z: 1001 um"),
    ],
)
def test_what_an_axis_does_not_reach_is_named(
    tiny: Measurement, change: dict[str, object], words: str
) -> None:
    assert words in is_refused(tiny.model_copy(update=change))


def test_the_approach_needs_room_too(tiny: Measurement) -> None:
    """The goniometer goes to -70 deg, and arrives from 0.5 deg below."""
    assert is_refused(tilted(tiny, 69.5)) == ""
    assert "reached only from -69.5 to 70 deg" in is_refused(tilted(tiny, 69.6))


@pytest.mark.parametrize("axis", ["x_um", "y_um", "z_um"])
def test_a_place_beyond_the_stage_is_named(tiny: Measurement, axis: str) -> None:
    place = {"x_um": 0.0, "y_um": 0.0, "z_um": 0.0, axis: 2001.0}
    measurement = tilted(tiny, 10.0, Place.model_validate(place))
    assert f"sample_{axis[0]}: 2001 um is planned" in is_refused(measurement)


@pytest.mark.parametrize(
    ("md", "words"),
    [
        ({"series": "x"}, "is written by the plan"),
        ({"a.b": 1}, "must be a text without"),
        ({"a": [{"b/c": 1}]}, "must be a text without"),
        ({"a": object()}, "cannot be written as JSON"),
        ({"a": math.nan}, "cannot be written as JSON"),
    ],
)
def test_metadata_that_a_document_cannot_have_is_refused(md: dict[str, object], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        check_metadata(md)


def test_metadata_of_any_depth_is_accepted() -> None:
    check_metadata({"proposal": {"number": 7, "people": ["A", "B"]}})
