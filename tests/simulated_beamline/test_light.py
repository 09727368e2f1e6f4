"""Ring, front end and shutter, and what their faults do to light and readbacks."""

import asyncio

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.light import Light, Stopwatch


async def put(database, name, value):
    """Write as a client does: the value, then the hook."""
    channel = database[name]
    await channel.write(channel.enum_strings[value] if hasattr(channel, "enum_strings") else value)
    await channel.on_put(channel.value)


def number(channel):
    """Return the value, of a menu the number of the choice."""
    choices = getattr(channel, "enum_strings", None)
    return choices.index(channel.value) if choices else channel.value


def scene(steps, **initial):
    """Run steps on a light of its own; returns (light, readbacks)."""

    async def run():
        database = {}
        faults = Faults(database, "SIM:FAULT:", initial)
        light = Light(database, load_configuration(), faults, 250.0)

        async def changed(_name):
            await light.refresh()

        faults.watch(changed)
        await light.refresh()
        for name, value in steps:
            await put(database, f"SIM:{name}", value)
        names = ("SHUTTER:Status", "FE:Status", "RING:Current")
        return light, {name: number(database[f"SIM:{name}"]) for name in names}

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("steps", "passes", "there", "readbacks"),
    [
        ([], False, True, (0, 1, 250)),
        ([("SHUTTER:Cmd", 1)], True, True, (1, 1, 250)),
        ([("SHUTTER:Cmd", 1), ("FE:Cmd", 0)], True, False, (1, 0, 250)),
        ([("FAULT:front_end_closed", 1)], False, False, (0, 0, 250)),
        ([("FAULT:beam_dump", 1)], False, False, (0, 1, 0)),
        ([("FAULT:beam_dump", 1), ("FAULT:beam_dump", 0)], False, True, (0, 1, 250)),
        ([("FAULT:shutter_stuck_closed", 1), ("SHUTTER:Cmd", 1)], False, True, (0, 1, 250)),
        ([("SHUTTER:Cmd", 1), ("FAULT:shutter_stuck_open", 1), ("SHUTTER:Cmd", 0)], True, True, (1, 1, 250)),
        (
            [
                ("FAULT:shutter_stuck_closed", 1),
                ("FAULT:shutter_status_lies", 1),
                ("SHUTTER:Cmd", 1),
            ],
            False,
            True,
            (1, 1, 250),
        ),
    ],
)  # fmt: skip
def test_light_and_readbacks(steps, passes, there, readbacks):
    light, found = scene(steps)
    check(light, found, passes, there, readbacks)


def test_faults_that_are_on_from_the_start_are_read_back():
    light, found = scene([], front_end_closed=1, beam_dump=1, shutter_stuck_open=1)
    check(light, found, True, False, (1, 0, 0))


def check(light, found, passes, there, readbacks):
    assert light.shutter_is_open is passes
    assert light.is_there is there
    assert tuple(found.values()) == readbacks


def test_a_share_is_exact_where_nothing_was_switched():
    assert Stopwatch(True).share() == 1
    assert Stopwatch(False).share() == 0


def test_light_that_comes_and_goes_counts_for_its_time():
    times_s = iter([10.0, 12.0, 13.0, 20.0])
    watch = Stopwatch(False, lambda: next(times_s))
    watch.switch(True)
    watch.switch(True)
    watch.switch(False)
    assert watch.share() == pytest.approx(0.1)
