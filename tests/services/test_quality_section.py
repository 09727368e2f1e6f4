"""How good the measurement is: what journal and status say is told, what they do not say is no gap."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mistral_txm.services.exposures import LogEntry
from mistral_txm.services.live_files import LIVE, STATUS, write_status
from mistral_txm.services.measured_series import MeasuredSeries, measured_series
from mistral_txm.services.quality_section import quality_section
from mistral_txm.services.report_parts import Drawn, Section
from mistral_txm.services.series_figures import history_figure, views_figure

VIEWS = [
    {"phi_deg": 0.0, "theta_deg": 10.0, "drift_vu_pixels": [3.0, 4.0], "sharpness": 0.8},
    {"phi_deg": 0.0, "theta_deg": -10.0, "drift_vu_pixels": None, "sharpness": 1.0, "noise": None},
    {"phi_deg": 102.0, "theta_deg": -10.0, "contrast": 6.0},
]
STATUS_OF_ALL: dict[str, Any] = {
    "angles_done": 3,
    "angles_planned": 4,
    "residual": 0.0312,
    "resolution_nm": 61.2,
    "exposures": {
        "repeats_left_out": ["phi 0 deg, repeat 2: too dark"],
        "references_left_out": ["phi 0 deg, flat 3 of helicity +1: no such file"],
        "zinger_pixels": 1234,
    },
    "alignment": {
        "by": "fiducials",
        "residual_nm": 0.26,
        "lean_deg": -0.004,
        "std_lean_deg": 0.002,
        "azimuths": [
            {"stated_phi_deg": 102.0, "phi_deg": 101.99, "std_phi_deg": 0.004, "views_left_out": 2}
        ],
    },
    "flags": [
        {"kind": "focus", "phi_deg": 0.0, "theta_deg": 10.0, "text": "out of focus: refocus"}
    ],
    "returns": [{"phi_deg": 102.0, "theta_deg": 0.0, "text": "phi 102: back at 0 deg: unchanged"}],
    "views": VIEWS,
    "history": [{"angles": 1, "residual": 0.05, "change": None}, {"angles": 2, "residual": 0.04}],
}
LOG = (
    LogEntry(100.0, "pause", "no light"),
    LogEntry(160.0, "pause", "still none"),
    LogEntry(280.0, "go_on", "light is back"),
    LogEntry(300.0, "note", "a coffee"),
    LogEntry(310.0, "repeat", "dark frame"),
)


def section_of(status: dict[str, Any] | None, log: tuple[LogEntry, ...] = ()) -> Section | None:
    measured = None
    if status is not None:
        measured = MeasuredSeries("uid", "film", (), {"planned": 8, "accepted": 7}, log, status)

    def draw(name: str, figure: Any, caption: str) -> Drawn:
        return Drawn(f"{name}.png", caption, 1, 1)

    volume = SimpleNamespace(options={})
    subject: Any = SimpleNamespace(measured=measured, summary={}, volume=volume, draw=draw)
    return quality_section(subject)


def test_everything_that_is_known_is_told() -> None:
    section = section_of(STATUS_OF_ALL, LOG)
    assert section is not None
    tables = {table.caption: [list(row) for row in table.rows] for table in section.tables}
    assert ["accepted", "7"] in tables["Exposures"]
    assert ["zingers removed, in all exposures (pixels)", "1,234"] in tables["Exposures"]
    assert ["lean of the tilt axis", "−0.004 ± 0.002 deg"] in tables["Alignment"]
    assert ["azimuth stated as 102°", "101.990 ± 0.004°; 2 views left out"] in tables["Alignment"]
    assert ["angles in the volume", "3 of 4"] in tables["Volume"]
    assert ["resolution, estimated (nm)", "61"] in tables["Volume"]
    assert tables["Flags"] == [["focus, azimuth 0°, tilt 10°", "out of focus: refocus"]]
    assert tables["Return to zero tilt"] == [["azimuth 102°", "phi 102: back at 0 deg: unchanged"]]
    assert tables["Repeats left out"] == [["1", "phi 0 deg, repeat 2: too dark"]]
    assert tables["Flats and darks left out"] == [
        ["1", "phi 0 deg, flat 3 of helicity +1: no such file"]
    ]
    assert [row[1] for row in tables["What happened"]] == [
        "pause: no light",
        "pause: still none",
        "repeat: dark frame",
    ]
    said = " ".join(section.paragraphs)
    assert "2 pauses, 3 min in all, no waits, no flags and 1 exposure taken again" in said
    assert [figure.file for figure in section.figures] == ["views.png", "history.png"]


@pytest.mark.parametrize("status", [{}, {"flags": []}, {"views": None, "alignment": None}])
def test_what_is_not_known_is_left_out(status: dict[str, Any]) -> None:
    section = section_of(status)
    assert section is not None
    assert section.figures == []
    assert ("No flag was raised" in " ".join(section.paragraphs)) == ("flags" in status)


def test_without_a_series_there_is_no_such_section() -> None:
    assert section_of(None) is None


def test_the_figures_show_the_values() -> None:
    drift, sharpness, contrast, _ = views_figure(VIEWS).axes
    assert drift.lines[0].get_xydata().tolist() == [[10.0, 5.0]]
    assert sharpness.lines[0].get_xydata().tolist() == [[-10.0, 1.0], [10.0, 0.8]]
    assert contrast.lines[1].get_xydata().tolist() == [[-10.0, 6.0]]
    (residual,) = history_figure(STATUS_OF_ALL["history"]).axes  # the others are not known
    np.testing.assert_array_equal(residual.lines[0].get_xydata(), [[1, 0.05], [2, 0.04]])


def test_a_series_is_read_from_journal_and_status(written_series: Any, tmp_path: Path) -> None:
    series = written_series(tmp_path)
    first = series.run(0.0)
    key = (0.0, -10.0, 1, 0)
    series.record(first)
    series.record(series.run(102.0, keys=[(102.0, -10.0, 1, 0)]))
    series.record(series.reject([key]))
    found = measured_series(tmp_path, "writ")
    assert (found.uid, found.sample) == ("written", "uniform film")
    assert [run.exposures for run in found.runs] == [12, 1]
    assert found.exposures["planned"] == 24
    assert found.exposures["accepted"] == 12
    assert found.exposures["missing"] == 12
    assert found.exposures["rejected"] == 1
    assert found.status == {}
    folder = tmp_path / LIVE / "written"
    folder.mkdir(parents=True)
    write_status(folder / STATUS, {"state": "following"})
    assert measured_series(tmp_path, "written").status == {"state": "following"}
