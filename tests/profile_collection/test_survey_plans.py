"""The survey as an operator types it: what is said of a picture that cannot be drawn."""

from pathlib import Path
from typing import Any

import pytest

from mistral_txm.profile_collection import survey_plans as module
from mistral_txm.profile_collection.survey_plans import draw_mosaic, survey_plans


def test_the_names_are_those_that_are_typed(tmp_path: Path) -> None:
    instrument: Any = object()  # nothing is asked of it before a plan runs
    assert list(survey_plans(instrument, tmp_path)) == [
        "mosaic",
        "field_of_view",
        "centre_rotation",
    ]


def test_a_run_that_is_no_mosaic_makes_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run abc: no such run"):
        draw_mosaic(tmp_path, "abc")
    assert not (tmp_path / "mosaics").exists()


def test_a_picture_that_failed_is_a_flag_not_a_failure() -> None:
    kind, text = module._told(ValueError("no flats"))
    assert kind == "flag"
    assert text == "mosaic: the frames are there, the picture is not: no flats"
