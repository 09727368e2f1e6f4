"""Draws the pictures of docs/how-to/find-the-region-of-interest.md: surveys and centres a simulated sample.

Usage: .venv/bin/python docs/draw_survey.py [--size small|medium|paper]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl

from mistral_txm.profile_collection import start
from mistral_txm.profile_collection.survey_plans import survey_plans
from mistral_txm.services.drawing import STYLE
from mistral_txm.services.mosaic import mosaic_figure, stitch
from mistral_txm.services.rotation_axis import evaluate_rotation_axis
from mistral_txm.services.runs import list_runs
from mistral_txm.services.scan_figures import rotation_axis_figure
from mistral_txm.services.scans import read_scan

IMAGES = Path(__file__).with_name("images")
EXPOSING: dict[str, Any] = {"exposure_s": 8.0, "flat_exposure_s": 3.0, "flat_repeats": 4}


def main() -> None:
    """Survey, choose, centre and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="medium", help="of the frames")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder of the pictures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with start(
            simulated=True, data=data, size=options.size, conditions="real", seed=1
        ) as session:
            RE, instrument = session["RE"], session["instrument"]
            plans = survey_plans(instrument, data)
            instrument.azimuth.set(0.0).wait(5)
            RE(plans["mosaic"](12.0, 8.0, **EXPOSING))
            instrument.sample_position.in_z_um.put(4.0)  # as it may be mounted
            RE(plans["field_of_view"](0.2, -0.1))
            RE(plans["centre_rotation"](**EXPOSING))
        runs = list_runs(data)
        (survey,) = [run for run in runs if run.plan_name == "mosaic"]
        picture = stitch(read_scan(data, survey.uid))
        series = [
            evaluate_rotation_axis(read_scan(data, run.uid))
            for run in runs
            if run.plan_name == "centre_rotation"
        ]
        with mpl.rc_context(dict(STYLE)):
            mosaic_figure(picture).savefig(options.images / "survey-mosaic.png", dpi=80)
            rotation_axis_figure(series).savefig(options.images / "survey-rotation-axis.png")
        for one in series:
            print(one.fit)


if __name__ == "__main__":
    main()
