"""Survey, choice of a field of view, centring: over Channel Access, against the truth of the simulated beamline."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mistral_txm.services.mosaic import stitch
from mistral_txm.services.scans import read_scan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SESSION = Path(__file__).with_name("survey_session.py")
PIXEL_UM = 0.0105
EXPOSING: dict[str, Any] = {
    "exposure_s": 8.0,
    "flat_exposure_s": 3.0,
    "flat_repeats": 2,
    "dark_repeats": 2,
}


def session(data: Path, conditions: str, plans: list[tuple[str, dict[str, Any]]]) -> Any:
    done = subprocess.run(
        [sys.executable, SESSION, conditions, "1", data, json.dumps(plans)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert not any(result["shutter_is_open"] for result in results)
    return results


def poses(data: Path) -> list[dict[str, Any]]:
    """The true states of the exposures of the sample, in order."""
    lines = [json.loads(line) for line in (data / "truth.jsonl").read_text().splitlines()]
    return [line for line in lines if "pose" in line and line["state"]["shutter_open"]]


def test_a_point_of_the_mosaic_comes_into_the_middle(tmp_path: Path) -> None:
    fiducial_um = np.array([1.010, 0.760])  # one that every simulated sample has, in its own frame
    away_um = 3 * np.array([0.8, -0.6])  # 3 um off it is where the survey begins
    start_um = -fiducial_um + away_um
    results = session(
        tmp_path,
        "ideal",
        [
            ("place", {"in_x_um": start_um[0], "in_y_um": start_um[1]}),
            ("mosaic", {"width_um": 8.0, "height_um": 7.0, **EXPOSING}),
            ("field_of_view", {"x_um": -fiducial_um[0], "y_um": -fiducial_um[1]}),
            ("mosaic", {"width_um": 1.0, "height_um": 1.0, **EXPOSING}),
        ],
    )
    uid = results[1]["returned"]
    assert results[1]["stages_um"] == pytest.approx(results[0]["stages_um"], abs=0.001)
    mosaic = stitch(read_scan(tmp_path, uid))
    # The darkest disc next to where the fiducial should be, in the axes of the picture.
    near = np.abs(mosaic.x_um + fiducial_um[0]) < 0.3, np.abs(mosaic.y_um + fiducial_um[1]) < 0.3
    part = gaussian_filter(
        np.nan_to_num(mosaic.transmittance_yx[np.ix_(near[1], near[0])], nan=0.4), 1.5
    )
    dark = part < part.min() + 0.25 * (np.median(part) - part.min())
    assert 5 < dark.sum() < 80  # of the 71 pixels that a disc of 100 nm has
    rows, columns = np.nonzero(dark)
    found_um = mosaic.x_um[near[0]][columns].mean(), mosaic.y_um[near[1]][rows].mean()
    assert found_um == pytest.approx(tuple(-fiducial_um), abs=2 * PIXEL_UM)
    for suffix in (".html", ".png", ".h5"):
        assert (tmp_path / "mosaics" / f"{uid[:8]}{suffix}").stat().st_size > 1000
    # By the truth, the fiducial is now in the middle of the camera within a pixel.
    last = poses(tmp_path)[-1]["pose"]
    in_view_um = fiducial_um + np.array([last["shift_u_nm"], last["shift_v_nm"]]) / 1000
    assert np.abs(in_view_um).max() < PIXEL_UM
    with h5py.File(tmp_path / "mosaics" / f"{results[3]['returned'][:8]}.h5") as file:
        picture = np.nan_to_num(file["transmittance"][...], nan=1.0)
        rows, columns = (slice(size // 2 - 2, size // 2 + 3) for size in picture.shape)
        assert picture[rows, columns].mean() < 0.65 * np.median(picture)


@pytest.mark.parametrize(
    ("conditions", "axis_um", "place_um", "theta_deg"),
    [
        ("ideal", (0.0, 0.0), (1.5, 4.0), 0.0),
        ("real", (0.05, -0.08), (-1.0, -3.0), 25.0),  # the offset of the axis in real.toml
    ],
)
def test_the_region_in_the_middle_comes_onto_the_axis(
    tmp_path: Path,
    conditions: str,
    axis_um: tuple[float, float],
    place_um: tuple[float, float],
    theta_deg: float,
) -> None:
    _first, result = session(
        tmp_path,
        conditions,
        [
            ("place", {"in_x_um": place_um[0], "in_z_um": place_um[1], "theta_deg": theta_deg}),
            ("centre_rotation", {**EXPOSING, "repeats": 1 if conditions == "ideal" else 2}),
        ],
    )
    assert not result["failure"]
    # The region: the point (p, 0) of the film that the first view at this tilt showed in the middle, by the truth.
    lines = poses(tmp_path)
    series = list(dict.fromkeys(Path(line["file"]).parent.name for line in lines))
    views = [line for line in lines if Path(line["file"]).parent.name == series[0]]
    shown_nm = [
        line["pose"]["shift_u_nm"] + 1000 * PIXEL_UM * line["image_shift"]["u_pixels"]
        for line in views
        if line["pose"]["theta_deg"] == pytest.approx(theta_deg, abs=0.1)
    ]
    on_film_um = -np.mean(shown_nm) / 1000 / np.cos(np.deg2rad(theta_deg))
    at_x_um = result["place_um"][0] + axis_um[0] + on_film_um
    at_z_um = result["place_um"][2] + axis_um[1]
    print(
        f"{conditions} {place_um} {theta_deg}: {1000 * at_x_um:.0f}, {1000 * at_z_um:.0f} nm from the axis"
    )
    # In real conditions the axis itself runs out by 40 nm rms, differently each time: two of 13 such
    # cases were more than 50 nm off.
    limit_um = 0.05 if conditions == "ideal" else 0.1
    assert abs(at_x_um) < limit_um
    assert abs(at_z_um) < limit_um
    assert result["theta_deg"] == pytest.approx(theta_deg, abs=0.02)
    assert result["stages_um"] == pytest.approx(result["place_um"], abs=0.001)
    # By the truth, the region stays where it is at all tilts of the last series, but for run-out and drift.
    u_nm = [
        line["pose"]["shift_u_nm"]
        + 1000 * on_film_um * np.cos(np.deg2rad(line["pose"]["theta_deg"]))
        for line in lines
        if Path(line["file"]).parent.name == series[-1]
    ]
    assert len(u_nm) >= 23
    assert np.ptp(u_nm) < (100 if conditions == "ideal" else 250)
