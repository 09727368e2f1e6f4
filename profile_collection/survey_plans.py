"""The plans that need an analysis of what they took: a survey with its picture, and a centring that sees its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator

from mistral_txm.plans import rotation_axis, survey
from mistral_txm.plans.rotation_axis import Centring, Offset
from mistral_txm.profile_collection.typed import typed

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


def survey_plans(instrument: Instrument, data: Path) -> dict[str, Callable[..., MsgGenerator[Any]]]:
    """Return `mosaic`, `field_of_view` and `centre_rotation` as an operator types them, without the instrument.

    What is taken is analysed from the journal and the frames of a data folder.
    """

    def mosaic(*size: Any, **options: Any) -> MsgGenerator[str]:
        uid: str = yield from survey.mosaic(instrument, *size, **options)
        written: list[Path | Exception] = []

        async def draw() -> None:
            try:
                written.append(await asyncio.to_thread(draw_mosaic, data, uid))
            except Exception as failure:  # the frames are taken; to draw them can be tried again
                written.append(failure)

        yield from bps.wait_for([draw])
        for each in written[-1:]:
            yield from bps.abs_set(instrument.log, _told(each))
        return uid

    def centre_rotation(**options: Any) -> MsgGenerator[Centring]:
        result: Centring = yield from rotation_axis.centre_rotation(
            instrument, locate=lambda uid: locate(data, uid), **options
        )
        return result

    without = ("instrument", "locate")
    exposing = "exposure_s=8, flat_exposure_s=3, flat_repeats=4"
    return {
        "mosaic": typed(
            mosaic, survey.mosaic, without=without, example=f"RE(mosaic(12, 8, {exposing}))"
        ),
        "field_of_view": typed(
            partial(survey.field_of_view, instrument),
            survey.field_of_view,
            without=without,
            example="RE(field_of_view(0.2, -0.1))",
        ),
        "centre_rotation": typed(
            centre_rotation,
            rotation_axis.centre_rotation,
            without=without,
            example=f"RE(centre_rotation({exposing}))",
        ),
    }


def locate(data: Path, uid: str) -> Offset:
    """Return where the region of a run of `centre_rotation` lies against the tilt axis."""
    from mistral_txm.services.rotation_axis import locate_region

    fit = locate_region(data, uid)
    return Offset(fit.x_nm / 1000, fit.z_nm / 1000, fit.std_x_nm / 1000, fit.std_z_nm / 1000)


def draw_mosaic(data: Path, uid: str) -> Path:
    """Stitch a mosaic, write ``mosaics/UID.html`` with a .png and an .h5 beside it, and return the page."""
    # What draws takes seconds to import, and most sessions draw no mosaic.
    from mistral_txm.services.mosaic import stitch, write_mosaic, write_page, write_picture
    from mistral_txm.services.scans import read_scan

    picture = stitch(read_scan(data, uid))
    folder = data / "mosaics"
    folder.mkdir(exist_ok=True)
    page = folder / f"{uid[:8]}.html"
    write_mosaic(page.with_suffix(".h5"), picture)
    write_picture(page.with_suffix(".png"), picture)
    write_page(page, picture)
    return page


def _told(written: Path | Exception) -> tuple[str, str]:
    if isinstance(written, Path):
        return "note", f"mosaic: draw a region in {written}"
    return "flag", f"mosaic: the frames are there, the picture is not: {written}"
