"""The return to zero tilt: where it comes, what it costs, and that it is taken once."""

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.key import Key
from mistral_txm.plans import (
    Measurement,
    dichroic_projection,
    estimate,
    retake,
    series_runs,
    vector_tomography,
)
from mistral_txm.plans.exposure_control import Frame, Seen
from mistral_txm.plans.measurement import ReturnToZero, Stop
from mistral_txm.plans.return_to_zero import return_keys, return_tilt_deg
from mistral_txm.plans.steps import steps

MakePlayer = Callable[..., Any]


@pytest.fixture
def measurement(tiny: Measurement) -> Measurement:
    """Tilts of -30, 0 and 2 deg, of which 0 deg is exposed twice."""
    return tiny.model_copy(update={"return_to_zero": ReturnToZero(repeats=3)})


def test_after_the_last_tilt_the_one_nearest_zero_is_exposed_again_in_both_helicities(
    player: MakePlayer, stub_instrument: Instrument, measurement: Measurement
) -> None:
    scene = player("102")
    scene.play(vector_tomography(stub_instrument, measurement, series="s"))
    primary = [key for stream, key in scene.events if stream == "primary"]
    assert tuple(primary) == measurement.planned_keys()
    for phi_deg, start in zip((0.0, 102.0), scene.measured, strict=True):
        mine = [(stream, key) for stream, key in scene.events if key.phi_deg == phi_deg]
        order = [stream for stream, _ in mine]
        begin = order.index("zero")
        assert order[begin - 1] == "primary"
        assert order[begin:] == 6 * ["zero"] + 4 * ["flat"]
        # The last tilt was exposed + - (the third), so - comes first, and + is what the flats begin with.
        keys = [key for _, key in mine[begin : begin + 6]]
        assert keys == [Key(phi_deg, 0.0, h, r) for h in (-1, 1) for r in (2, 3, 4)]
        assert mine[begin + 6][1].helicity == 1
        planned = {(*place, r) for *place, n in start["planned_keys"] for r in range(n)}
        assert planned == set(measurement.planned_keys())
        assert start["n_planned"] == 14
    for (stream, key), state in zip(scene.events, scene.states, strict=True):
        if stream == "zero":
            assert (state["theta"], state["polarization"]) == (0.0, key.helicity)
            assert (state["sample_position"], state["shutter"]) == ("in", "open")
    files = [state["ccd_frame_file"] for state in scene.states]
    of_returns = [
        file for file, (stream, _) in zip(files, scene.events, strict=True) if stream == "zero"
    ]
    assert set(of_returns) == {
        f"s/phi_{phi}_zero_0_{side}" for phi in (0, 102) for side in ("plus", "minus")
    }


def test_a_return_alone_is_taken_with_its_own_flats_and_once(measurement: Measurement) -> None:
    tilts = [key for key in measurement.planned_keys() if key.phi_deg == 0]
    taken = steps(measurement, 0.0, {707.4: tilts})
    assert [step.stream for step in taken] == [
        "dark",
        "dark",
        "flat",
        "flat",
        "zero",
        "zero",
        "flat",
        "flat",
    ]
    assert {step.exposure_s for step in taken if step.stream == "dark"} == {0.5, 1.0}
    assert taken[3].helicity == taken[4].helicity
    again = return_keys(measurement)
    (left,) = [s for s in steps(measurement, 0.0, {707.4: [*tilts, *again[:5]]}) if s.shows_sample]
    assert left.keys == (again[5],)
    assert steps(measurement, 0.0, {707.4: [*tilts, *again]}) == ()


def test_a_run_of_a_return_alone_tells_what_its_series_plans(
    player: MakePlayer, stub_instrument: Instrument, measurement: Measurement
) -> None:
    scene = player()
    done = [*measurement.planned_keys(), *return_keys(measurement)[6:]]
    scene.play(vector_tomography(stub_instrument, measurement, series="s", skip={707.4: done}))
    (start,) = scene.measured
    assert (start["n_planned"], len(start["planned_keys"])) == (0, 12)
    assert [key.phi_deg for stream, key in scene.events if stream == "zero"] == 6 * [0.0]


def test_other_plans_take_none(
    player: MakePlayer, stub_instrument: Instrument, measurement: Measurement
) -> None:
    scene = player()
    again = [Key(0.0, 0.0, 1, 0)]
    scene.play(retake(stub_instrument, measurement, again, series="s"))
    scene.play(dichroic_projection(stub_instrument, measurement, 1.0))
    assert {stream for stream, _ in scene.events} == {"dark", "flat", "primary"}


def test_there_is_none_without_the_setting_or_where_the_last_tilt_is_it(
    tiny: Measurement, measurement: Measurement
) -> None:
    assert (return_tilt_deg(tiny), return_tilt_deg(measurement)) == (None, 0.0)
    below = measurement.model_copy(update={"tilts": measurement.tilts[:1]})
    assert (return_tilt_deg(below), return_keys(below)) == (None, ())


def test_interleaved_edges_return_together(measurement: Measurement) -> None:
    both = measurement.model_copy(update={"energies_ev": (707.4, 778.1), "edges": "interleaved"})
    back = [step for step in steps(both, 0.0) if step.stream == "zero"]
    assert [step.energy_ev for step in back] == [707.4, 778.1, 778.1, 707.4]
    assert sum(a.helicity != b.helicity for a, b in pairwise(back)) == 1


def test_what_it_costs(tiny: Measurement, measurement: Measurement) -> None:
    """Six exposures of 1 s, one change of the slit, and one more to put it back: it is left at the other helicity."""
    configuration = load_configuration()
    with_it, without = (
        estimate(one.model_copy(update={"azimuths_deg": (0.0,)}), configuration, (4, 5))
        for one in (measurement, tiny)
    )
    assert with_it.frames - without.frames == 6
    assert with_it.sample_exposure_s - without.sample_exposure_s == 6.0
    assert with_it.helicity_changes - without.helicity_changes == 2
    assert with_it.slit_s - without.slit_s == 2 * 73.0


def test_it_does_not_make_the_view_look_better_than_it_is(measurement: Measurement) -> None:
    """Signal to noise of a view that is resumed counts its own exposures alone."""
    seen = Seen(load_configuration().ccd)
    frame = Frame(3000.0, 4000.0, 0.0, 250.0, 1, 1)
    view, back = (
        next(
            s
            for s in steps(measurement, 0.0)
            if s.stream == stream and s.theta_deg == 0.0 and s.helicity == 1
        )
        for stream in ("primary", "zero")
    )
    first = seen.add(view, 0, 1.0, frame)
    returned = seen.add(back, 2, 1.0, frame._replace(crc32=2))
    second = seen.add(view, 1, 1.0, frame._replace(crc32=3))
    assert second.signal_to_noise == pytest.approx(2**0.5 * first.signal_to_noise)
    assert returned.dose_mA_s == 500.0


def test_no_return_is_begun_when_the_time_is_over(
    player: MakePlayer,
    stub_instrument: Instrument,
    measurement: Measurement,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = player()
    # Each of 24 exposures before it takes 0.1 h on this clock.
    clock = SimpleNamespace(monotonic=lambda: 360.0 * len(scene.events))
    monkeypatch.setattr(series_runs, "time", clock)
    short = measurement.model_copy(update={"stop": Stop(max_duration_h=2.35)})
    scene.play(vector_tomography(stub_instrument, short, series="s"))
    assert [stream for stream, _ in scene.events].count("primary") == 14
    assert "zero" not in {stream for stream, _ in scene.events}
    assert scene.log[-1][1].startswith("s: stopped before theta 0 deg: its 2.35 h")
