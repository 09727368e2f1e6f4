"""Fields of view of a random pattern, stitched in the coordinates of the stages."""

import math
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter, map_coordinates

from mistral_txm.services import mosaic as module
from mistral_txm.services.mosaic import (
    Mosaic,
    blended,
    mosaic_figure,
    refined,
    write_mosaic,
    write_page,
    write_picture,
)

SIZE = 64


@pytest.fixture(scope="module")
def pattern() -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(2).normal(size=(300, 300)), 2.5)
    return 0.3 + 0.1 * smooth / smooth.std()


def tile(pattern: np.ndarray, middle_yx: np.ndarray, noise: float, seed: int) -> np.ndarray:
    at = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2 + np.reshape(middle_yx, (2, 1, 1))
    shown = map_coordinates(pattern, at, order=3)
    return shown + noise * np.random.default_rng(seed).normal(size=shown.shape)


def grid(jitter: float) -> tuple[np.ndarray, np.ndarray]:
    told = np.array([[80.0 + 40.3 * i, 90.0 + 41.6 * j] for i in range(3) for j in range(3)])
    return told, told + np.random.default_rng(5).normal(0, jitter, told.shape)


def test_tiles_are_laid_to_a_part_of_a_pixel(pattern: np.ndarray) -> None:
    _, at = grid(0.0)
    tiles = [tile(pattern, place, 0.0, 0) for place in at]
    tiles[4][10:12, 20] = np.nan
    picture, first = blended(tiles, at)
    there = np.isfinite(picture)
    v, u = np.nonzero(there)
    expected = pattern[v + int(first[0]), u + int(first[1])]
    # A spline between pixels, of what is not sharper than a few of them.
    assert np.abs(picture[there] - expected).max() < 0.01
    assert there[4:-4, 4:-4].mean() > 0.99


def test_overlaps_correct_the_readbacks(pattern: np.ndarray) -> None:
    told, true = grid(2.0)
    tiles = [tile(pattern, place, 0.02, number) for number, place in enumerate(true)]
    found = refined(tiles, told, np.array([4.0, 4.0]))
    off = found - true
    off -= off.mean(axis=0)  # where all of them lie together, the readbacks alone tell
    assert np.abs(off).max() < 0.3
    assert (found - told).mean(axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_tiles_without_anything_in_common_lie_where_the_stages_may_be(pattern: np.ndarray) -> None:
    told, _ = grid(0.0)
    noise = np.random.default_rng(0).normal(0.3, 0.05, (len(told), SIZE, SIZE))
    assert np.abs(refined(list(noise), told, np.array([4.0, 4.0])) - told).max() < 4.0


@pytest.fixture
def surveyed(pattern: np.ndarray) -> Mosaic:
    at = np.zeros((1, 2))
    x_um = 4.0 + 0.02 * np.arange(300)
    picture = pattern.astype(np.float32)
    picture[50:60, 200:210] = 0.02  # dark, near low y and high x
    return Mosaic("mosaic abc", picture, x_um, -2.0 + 0.01 * np.arange(300), at, at, 60.0, 1)


def test_the_file_has_axes_in_um(surveyed: Mosaic, tmp_path: Path) -> None:
    write_mosaic(tmp_path / "m.h5", surveyed)
    with h5py.File(tmp_path / "m.h5") as file:
        data = file["transmittance"]
        assert data.dims[1][0][205] == pytest.approx(8.1)
        assert data.dims[0][0][55] == pytest.approx(-1.45)
        assert data[55, 205] == np.float32(0.02)
        assert file.attrs["theta_deg"] == 60.0


def test_the_picture_looks_as_on_the_camera(surveyed: Mosaic, tmp_path: Path) -> None:
    axes = mosaic_figure(surveyed).axes[0]
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    assert left > right  # the stage goes to higher x where what is left comes to the middle
    assert bottom > top
    write_picture(tmp_path / "m.png", surveyed)
    image = imread(tmp_path / "m.png")[..., 0]
    dark = np.argwhere(image < 0.05 * image.max())
    assert len(dark)


def test_the_page_needs_nothing_from_outside_and_says_what_to_type(
    surveyed: Mosaic, tmp_path: Path
) -> None:
    write_page(tmp_path / "m.html", surveyed)
    page = (tmp_path / "m.html").read_text()
    assert "RE(field_of_view(" in page
    assert not re.search(r'<(script|link|img)[^>]+(src|href)="[^"]*//', page)
    assert "BoxSelectTool" in page


def test_large_pictures_are_averaged_before_they_are_drawn(
    surveyed: Mosaic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_PICTURE", 100)
    picture, x_um, y_um = module._reduced(surveyed)
    assert picture.shape == (100, 100)
    assert picture[18, 67] == pytest.approx(surveyed.transmittance_yx[54:57, 201:204].mean())
    assert x_um[67] == pytest.approx(surveyed.x_um[202])
    assert y_um[18] == pytest.approx(surveyed.y_um[55])
    assert math.isfinite(picture.sum())
