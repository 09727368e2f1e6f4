"""Flags of the live reconstruction, raised by the simulated beamline's own faults and by nothing else."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from mistral_txm.reconstruction.signal import Signals
from mistral_txm.services.aligned_views import AlignedViews
from mistral_txm.services.angle_signals import AngleSignals
from mistral_txm.services.live_flags import QualityWatch
from mistral_txm.services.live_views import SeenView
from mistral_txm.simulated_beamline.sample import PIXEL_NM
from tests.reconstruction.conftest import integrate, stripes
from tests.services.simulated_views import developed, render

LAYERS = ((-120.0, -40.0), (40.0, 120.0))
TILTS = (-30.0, -25.0, -20.0, -15.0, -10.0)
WHERE = -15.0
SIZE = 192

FAULTS = {
    # the names of the simulated beamline's faults, and what they make of the state of an exposure
    "helicity_swapped": ("helicity", lambda at: replace(at, helicity_swapped=True)),
    "energy.encoder_jump=0.5": ("contrast", lambda at: replace(at, energy_ev=at.energy_ev + 0.5)),
    "energy.encoder_jump=-0.5": ("contrast", lambda at: replace(at, energy_ev=at.energy_ev - 0.5)),
    "zone_plate_z.encoder_jump=3": (
        "focus",
        lambda at: replace(at, zone_plate_z_um=at.zone_plate_z_um + 3.0),
    ),
    "zone_plate_z.frozen": ("focus", lambda at: replace(at, zone_plate_z_um=0.0)),
    "sample_slip=0.3": (
        "sample",
        lambda at: replace(at, sample_x_um=at.sample_x_um + 0.3, sample_y_um=at.sample_y_um + 0.3),
    ),
    "jaws frozen": ("helicity", lambda at: replace(at, jaw_down_mm=1.5, jaw_up_mm=2.5)),
}


def seen(signals, *, first_s=0):
    """Views in the order in which they were measured."""
    views = []
    for time_s, one in enumerate(signals, start=first_s):
        exposures = {1: (SimpleNamespace(time=float(time_s)),)}
        angle = SimpleNamespace(phi_deg=one.phi_deg, theta_deg=one.theta_deg, exposures=exposures)
        views.append(SeenView.of(angle, one, PIXEL_NM))
    return views


def flags_of(views):
    """Flags after every view has come by itself."""
    watch = QualityWatch(PIXEL_NM, LAYERS)
    for number in range(len(views)):
        watch.look(views[: number + 1])
    return watch.flags()


@pytest.fixture(scope="module")
def clean():
    return developed(render("stripes", 3, TILTS, SIZE, azimuths_deg=(0.0,)), 0)


def with_fault(clean, altered):
    """The same series with one view taken as the fault makes it."""
    (bad,) = developed(
        render("stripes", 3, (WHERE,), SIZE, azimuths_deg=(0.0,), altered=altered), 1
    )
    return [bad if one.theta_deg == WHERE else one for one in clean]


@pytest.mark.slow
def test_a_good_series_has_no_flags(clean):
    assert not flags_of(seen(clean))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_flagged_once_by_its_kind(clean, name):
    kind, altered = FAULTS[name]
    found = flags_of(seen(with_fault(clean, altered)))
    assert [(one.kind, one.theta_deg) for one in found] == [(kind, WHERE)]
    assert found[0].text.startswith("phi 0 deg, theta -15 deg: ")
    assert "\n" not in found[0].text


def swapped(one):
    """The signals of a view whose helicities are swapped."""
    images = one.signals
    return replace(one, signals=Signals(images.absorption_vu, -images.dichroic_vu, images.std_vu))


@pytest.mark.slow
def test_a_fault_that_lasts_is_told_once_and_gone_with_the_views_that_had_it(clean):
    views = seen([swapped(one) if one.theta_deg >= -20.0 else one for one in clean])
    watch = QualityWatch(PIXEL_NM, LAYERS)
    for number in range(len(views)):
        watch.look(views[: number + 1])
    assert [(one.kind, one.theta_deg) for one in watch.flags()] == [("helicity", -20.0)]
    again = seen(clean[2:], first_s=100)
    watch.look(views[:2] + again)
    assert not watch.flags()


@pytest.mark.slow
def test_a_view_in_which_the_sample_slipped_tells_no_helicity():
    """Its own sign may be anything: here it is the wrong one, and the view after it is good."""

    def taken(tilts_deg, seed, **more):
        return developed(render("stripes", 3, tilts_deg, SIZE, azimuths_deg=(0.0,), **more), seed)

    altered = FAULTS["sample_slip=0.3"][1]
    within, after = taken((-30.0, -25.0), 1, altered=altered)
    found = flags_of(seen([*taken((-40.0, -35.0), 0), swapped(within), after]))
    assert [(one.kind, one.theta_deg) for one in found] == [("sample", -30.0)]
    assert "nothing in common" in found[0].text


@pytest.mark.slow
def test_the_order_in_which_views_become_known_does_not_matter(clean):
    views = seen([swapped(one) if one.theta_deg == WHERE else one for one in clean])
    at_once = QualityWatch(PIXEL_NM, LAYERS)
    at_once.look(list(reversed(views)))
    assert at_once.flags() == flags_of(views)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_azimuth_with_its_sign_turned_is_flagged_also_where_a_hand_turned_it_elsewhere(sign):
    """Planned are 102 deg, stated 101.4: what is laid for the volume goes by what was stated."""
    rng, tilts_deg, views, laid = np.random.default_rng(2), np.arange(-50.0, 51.0, 10.0), [], []
    for planned_deg, stated_deg, turned in ((0.0, 0.0, 1), (102.0, 101.4, sign)):
        images = np.stack([integrate(stripes, t, stated_deg, 48, 120.0) for t in tilts_deg])
        noise = 0.05 * images.std()
        images = turned * images + rng.normal(0, noise, images.shape)
        std = np.full((48, 48), noise, np.float32)
        signals = [
            AngleSignals(
                stated_deg, t, Signals(std + 0.5 / np.cos(np.radians(t)), np.float32(one), std)
            )
            for t, one in zip(tilts_deg, images, strict=True)
        ]
        views += [
            replace(one, angle=SimpleNamespace(**vars(one.angle), stated_phi_deg=stated_deg))
            for one in seen(signals, first_s=len(views))
        ]
        for one in views[-len(tilts_deg) :]:
            one.angle.phi_deg = planned_deg
        laid.append(AlignedViews(stated_deg, stated_deg, tilts_deg, tuple(signals)))
    watch = QualityWatch(PIXEL_NM, LAYERS)
    watch.look(views)
    watch.look_at_azimuths(laid)
    found = [one for one in watch.flags() if "contradicts" in one.text]
    assert [(one.kind, one.phi_deg) for one in found] == [("helicity", 102.0)] * (sign < 0)
