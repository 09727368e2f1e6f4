"""Exposures that saturate: taken again with less time, as are those after them, in this run and the next."""

from collections.abc import Callable
from typing import Any

import pytest

from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.key import Key
from mistral_txm.plans.exposure_control import Looked
from mistral_txm.plans.measurement import ExposureControl, Measurement, Tilts
from mistral_txm.plans.tomography import tilt_series, vector_tomography

SATURATION_COUNTS = 62700.0
OFFSET_COUNTS = 300.0


class Scene:
    """A film of known brightness: what a camera counts that ends at its saturation."""

    def __init__(self, player: Any, bright_per_s: float) -> None:
        self.player = player
        self.bright_per_s = bright_per_s
        player.counts = self._counts

    def _counts(self, values: dict[str, Any]) -> float:
        lit = values["shutter"] == "open"
        place = values["sample_position"]
        bright = OFFSET_COUNTS + lit * self.bright_per_s * float(values["ccd_cam_acquire_time"])
        is_saturated = place == "in" and bright >= SATURATION_COUNTS
        values["ccd_bright_counts"] = min(bright, SATURATION_COUNTS)
        values["ccd_saturated_fraction"] = 0.02 if is_saturated else 0.0
        return 0.5 * min(bright, SATURATION_COUNTS) if lit else OFFSET_COUNTS

    def taken(self, helicity: int) -> list[tuple[float, int, float]]:
        """Return tilt, repeat and exposure time of the exposures of the sample."""
        return [
            (key.theta_deg, key.repeat, float(state["ccd_cam_acquire_time"]))
            for (stream, key), state in zip(self.player.events, self.player.states, strict=True)
            if stream == "primary" and key.helicity == helicity
        ]


@pytest.fixture
def bright(tiny: Measurement) -> Measurement:
    """Two tilts whose exposures of 20 s are far too long."""
    return tiny.model_copy(
        update={
            "azimuths_deg": (0.0,),
            "tilts": (
                Tilts(first_deg=0.0, last_deg=2.0, step_deg=2.0, exposure_s=20.0, repeats=3),
            ),
            "exposure_control": ExposureControl(exposures_s=(1.0, 4.0, 8.0, 12.0, 20.0)),
        }
    )


def test_a_saturated_exposure_and_those_after_it_are_taken_with_less_time(
    player: Callable[..., Any], stub_instrument: Instrument, bright: Measurement
) -> None:
    """7000 counts/s saturate in 12 s: 62700 seen in 20 s let 12 s try, 62700 in 12 s then 8 s, which are 56300.

    Those are above the fill of 0.8, so that the next tilt has 4 s.
    """
    scene = Scene(player(), 7000.0)
    scene.player.play(tilt_series(stub_instrument, bright, 0.0, series="s"))
    first = [(0.0, 0, 20.0), (0.0, 0, 12.0), (0.0, 0, 8.0), (0.0, 1, 8.0), (0.0, 2, 8.0)]
    assert scene.taken(1) == [*first, *((2.0, repeat, 4.0) for repeat in range(3))]
    said = [text for _, text in scene.player.log if "+1" in text]
    assert said == [
        f"theta 0 deg, helicity +1: 2 % of the pixels are saturated at {long_s} s; taken again, and exposed for "
        f"{short_s} s from here on"
        for long_s, short_s in ((20, 12), (12, 8))
    ]


def test_what_saturates_with_the_shortest_time_is_taken_once_and_flagged(
    player: Callable[..., Any], stub_instrument: Instrument, bright: Measurement
) -> None:
    scene = Scene(player(), 1e6)
    scene.player.play(tilt_series(stub_instrument, bright, 0.0, series="s"))
    second = [each for each in scene.taken(1) if each[0] == 2.0]
    assert second == [(2.0, repeat, 1.0) for repeat in range(3)]
    flags = [text for kind, text in scene.player.log if kind == "flag" and "theta 2 deg" in text]
    assert len(flags) == 2


def test_without_exposure_control_nothing_is_taken_again(
    player: Callable[..., Any], stub_instrument: Instrument, bright: Measurement
) -> None:
    scene = Scene(player(), 7000.0)
    plain = bright.model_copy(update={"exposure_control": None})
    scene.player.play(tilt_series(stub_instrument, plain, 0.0, series="s"))
    assert [time_s for _, _, time_s in scene.taken(1)] == [20.0] * 6


def test_the_repeats_of_a_saturated_exposure_count_once_for_the_signal_to_noise(
    player: Callable[..., Any], stub_instrument: Instrument, bright: Measurement
) -> None:
    """8 s at 7000 counts/s: 28150 on average, 300 of them dark: 230 photons of 121.1 counts, S/N 26.3 after 3."""
    control = bright.exposure_control
    assert control is not None
    wanted = control.model_copy(update={"signal_to_noise": 26.0})
    many = bright.model_copy(
        update={
            "exposure_control": wanted,
            "tilts": (Tilts(first_deg=0.0, last_deg=0.0, exposure_s=20.0, repeats=6),),
        }
    )
    scene = Scene(player(), 7000.0)
    scene.player.play(tilt_series(stub_instrument, many, 0.0, series="s"))
    assert [repeat for _, repeat, _ in scene.taken(1)] == [0, 0, 0, 1, 2]
    assert scene.player.waived == [Key(0.0, 0.0, 1, 3), Key(0.0, 0.0, -1, 3)]


def test_a_run_goes_on_from_what_was_seen_before_it(
    player: Callable[..., Any], stub_instrument: Instrument, bright: Measurement
) -> None:
    """Two of three repeats were there; with them the third is enough. The brightness is that of the nearest tilt."""
    control = bright.exposure_control
    assert control is not None
    wanted = control.model_copy(update={"signal_to_noise": 26.0, "least_repeats": 3})
    many = bright.model_copy(
        update={
            "exposure_control": wanted,
            "tilts": (Tilts(first_deg=0.0, last_deg=0.0, exposure_s=20.0, repeats=6),),
        }
    )
    done = frozenset(Key(0.0, 0.0, helicity, repeat) for helicity in (1, -1) for repeat in (0, 1))
    looked = Looked(
        bright_per_ma_s={(707.4, h): {-50.0: 1.0, -1.0: 7000.0 / 250.0} for h in (1, -1)},
        photons={(707.4, 0.0, 0.0, h): {0: 290.0, 1: 290.0} for h in (1, -1)},
    )
    scene = Scene(player(), 7000.0)
    plan = vector_tomography(stub_instrument, many, series="s", skip={707.4: done}, looked=looked)
    scene.player.play(plan)
    # 4 s are 115 photons: 290 + 290 + 115 = 695 > 26^2
    assert scene.taken(1) == [(0.0, 2, 4.0)]
    assert scene.player.waived == [Key(0.0, 0.0, 1, 3), Key(0.0, 0.0, -1, 3)]
