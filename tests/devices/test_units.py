"""What is recorded before and after a run says in which unit it is."""

import re
from typing import Any

import pytest

UNITS = {
    "theta": "deg",
    "sample_x": "um",
    "sample_y": "um",
    "sample_z": "um",
    "zone_plate_z": "um",
    "jaw_up": "mm",
    "jaw_down": "mm",
    "energy": "eV",
    "azimuth": "deg",
    "ring_current": "mA",
    "top_up": "s",
}
NAMES_ITS_UNIT = re.compile(r"_(deg|um|mm|s|eV)$")


@pytest.fixture(scope="module")
def described(instrument: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for device in instrument.baseline:
        device.read()
        columns |= device.describe() | device.describe_configuration()
    return columns


@pytest.mark.parametrize(("name", "unit"), UNITS.items())
def test_a_reading_has_the_unit_of_its_quantity(
    described: dict[str, Any], name: str, unit: str
) -> None:
    assert described[name]["dtype"] == "number"
    assert described[name]["units"] == unit


def test_no_number_of_the_baseline_is_without_a_unit(described: dict[str, Any]) -> None:
    bare = {
        key
        for key, column in described.items()
        if column["dtype"] == "number" and not column.get("units")
    }
    assert {key for key in bare if not NAMES_ITS_UNIT.search(key)} == set()


def test_states_are_no_quantities(described: dict[str, Any]) -> None:
    assert {
        name: described[name]["dtype"] for name in ("polarization", "front_end", "shutter")
    } == {
        "polarization": "integer",
        "front_end": "integer",
        "shutter": "string",
    }
