"""The table of faults, and their process variables."""

import asyncio
from pathlib import Path

import pytest

from mistral_txm.simulated_beamline.faults import FAULTS, Faults, parse


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("beam_dum", "the nearest are beam_dump"),
        ("beam_dump=2", "expected 0 or 1"),
        ("beam_lost=1.5", "expected -1, 0, 1, 2"),
        ("beam_lost=-2", "expected -1, 0, 1, 2"),
        ("dark_drift=nan", "expected a number"),
        ("silence=-1", "expected a number of 0 or more"),
        ("fiducials_lost=0.5", "expected 0, 1, 2"),
        ("dark_drift=much", "'much' is not a number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text, complaint):
    with pytest.raises(ValueError, match=complaint) as refusal:
        parse(text)
    assert "\n" not in str(refusal.value)


def test_a_count_runs_out_and_minus_one_does_not():
    async def spent(initial):
        faults = Faults({}, "F:", {"ccd_hang": initial})
        return [await faults.spend("ccd_hang") for _ in range(3)], faults.amount("ccd_hang")

    assert asyncio.run(spent(2)) == ([True, True, False], 0)
    assert asyncio.run(spent(-1)) == ([True, True, True], -1)


def test_what_a_fault_cannot_be_springs_back():
    async def left(name, value):
        database = {}
        faults = Faults(database, "F:", {name: 1})
        channel = database[f"F:{name}"]
        await channel.write(value)
        await channel.on_put(value)
        return channel.value, faults.amount(name)

    assert asyncio.run(left("beam_dump", 7)) == (1, 1)
    assert asyncio.run(left("silence", -1.0)) == (1, 1)
    assert asyncio.run(left("dark_drift", float("nan"))) == (1, 1)


def test_every_fault_is_a_process_variable_that_starts_as_told():
    database = {}
    Faults(database, "SIM:FAULT:", {"theta.encoder_jump": 0.25})
    assert len(database) == len(FAULTS)
    assert database["SIM:FAULT:theta:encoder_jump"].value == 0.25
    assert all(
        channel.value == 0 for name, channel in database.items() if "encoder_jump" not in name
    )


def test_a_client_that_sets_a_fault_is_noticed():
    async def noticed():
        names, database = [], {}
        faults = Faults(database, "F:", {})

        async def changed(name):
            names.append((name, faults.amount(name)))

        faults.watch(changed)
        channel = database["F:beam_dump"]
        await channel.write(1)
        await channel.on_put(1)
        return names

    assert asyncio.run(noticed()) == [("beam_dump", 1)]


def test_the_reference_page_lists_them_all():
    page = (Path(__file__).parents[2] / "docs/reference/faults.md").read_text(encoding="utf-8")
    for name, fault in FAULTS.items():
        assert f"| `{name.rpartition('.')[2]}` | {fault.kind}" in page
        assert f"| {fault.meaning} |" in page
