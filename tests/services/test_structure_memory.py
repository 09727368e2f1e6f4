"""New views laid among known ones: on magnetized balls whose projections are written out by hand."""

import numpy as np
import pytest

from mistral_txm.reconstruction import InputError
from mistral_txm.reconstruction.reprojection import RefinedShifts
from mistral_txm.reconstruction.signal import Signals
from mistral_txm.services import structure_memory
from mistral_txm.services.alignment import align
from mistral_txm.services.angle_signals import AngleSignals
from mistral_txm.services.structure_memory import StructureMemory
from tests.reconstruction.grains import PIXEL_NM, TILTS, N, grains, measured

SLAB_NM = ((-150.0, 150.0),)
EVEN = np.full((N, N), 0.5, np.float32), np.full((N, N), 0.01, np.float32)


@pytest.fixture(scope="module")
def film():
    """Angles of one azimuth, tilts ascending, and where they truly are."""
    rng = np.random.default_rng(5)
    shifts = rng.normal(0, 40, (len(TILTS), 2))
    series = measured(rng, grains(rng), 0.0, shifts, magnetic=True)
    angles = [
        AngleSignals(0.0, float(theta), Signals(EVEN[0], image.astype(np.float32), EVEN[1]))
        for theta, image in zip(TILTS, series.dichroic_tvu, strict=True)
    ]
    return angles, dict(zip(TILTS.tolist(), shifts, strict=True))


@pytest.fixture
def together(film, monkeypatch):
    """Which views were refined together, one entry for each time; then they are where they truly are."""
    _, shifts = film
    asked = []

    def true_shifts(groups, pixel_nm, layers_nm):
        asked.append([one.theta_deg for one in groups[0]])
        shift = np.array([shifts[one.theta_deg] for one in groups[0]])
        none = np.tile(np.eye(2), (len(shift), 1, 1))
        std = np.full_like(shift, 1.0)
        return RefinedShifts(
            (shift,), (std,), (0.0,), (0.0,), (0.0, 0.0), (0.0, 0.0), (none,), 0.0, 1.0
        )

    monkeypatch.setattr(structure_memory, "shifts_by_structure", true_shifts)
    return asked


def off_pixels(views, told, shifts):
    assert (told.aligned, told.by) == (True, "structure")
    (one,) = views
    true = np.array([shifts[theta] for theta in one.theta_deg_t])
    return np.abs(one.shift_vu_nm_t - true).max(axis=1) / PIXEL_NM


def test_new_views_are_found_among_known_ones_which_stay(film, together):
    angles, shifts = film
    memory = StructureMemory()
    for count, provisional in ((14, 0), (15, 1), (16, 2)):
        views, told = align(angles[:count], PIXEL_NM, None, SLAB_NM, memory.shifts)
        off = off_pixels(views, told, shifts)
        assert not off[:14].any()
        assert (off[14:] < 0.3).all()
        assert told.provisional_views == provisional
    assert "2 views provisionally" in told.message
    assert len(together) == 1


def test_all_are_refined_together_when_many_are_new_and_at_the_end_once(film, together):
    angles, shifts = film
    memory = StructureMemory()
    for count in range(14, 19):
        align(angles[:count], PIXEL_NM, None, SLAB_NM, memory.shifts)
    assert [len(views) for views in together] == [14, 17]
    for _ in range(2):
        views, told = align(angles, PIXEL_NM, None, SLAB_NM, memory.all_shifts)
        assert not off_pixels(views, told, shifts).any()
        assert told.provisional_views == 0
        assert "provisional" not in told.message
    assert [len(views) for views in together] == [14, 17, len(angles)]


def test_a_view_that_is_taken_again_is_placed_and_one_that_is_rejected_is_gone(film, together):
    angles, shifts = film
    memory = StructureMemory()
    align(angles, PIXEL_NM, None, SLAB_NM, memory.shifts)
    again = AngleSignals(0.0, angles[4].theta_deg, angles[4].signals)
    views, told = align([*angles[:4], again, *angles[5:]], PIXEL_NM, None, SLAB_NM, memory.shifts)
    off = off_pixels(views, told, shifts)
    assert 0 < off[4] < 0.3
    assert not np.delete(off, 4).any()
    views, told = align([*angles[:4], *angles[5:]], PIXEL_NM, None, SLAB_NM, memory.shifts)
    assert not off_pixels(views, told, shifts).any()
    assert told.provisional_views == 0
    assert len(together) == 1


def test_a_film_that_was_refused_is_looked_at_again_when_many_views_are_new(film, monkeypatch):
    angles, _ = film
    asked = []

    def refuse(groups, pixel_nm, layers_nm):
        asked.append(len(groups[0]))
        raise InputError(f"nothing in {len(groups[0])} views")

    monkeypatch.setattr(structure_memory, "shifts_by_structure", refuse)
    memory = StructureMemory()
    told = [align(angles[:n], PIXEL_NM, None, SLAB_NM, memory.shifts)[1] for n in range(13, 16)]
    assert asked == [13, 15]
    assert ["nothing in 13" in one.message for one in told] == [True, True, False]
