"""One exposure of whatever stands in the beam, to look at: what an operator calls a count."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import MsgGenerator

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


def snapshot(instrument: Instrument, exposure_s: float = 1.0) -> MsgGenerator[str]:
    """Expose once with the shutter open, as a run of its own; nothing else moves.

    The frame is kept, below ``frames/snapshots``, and belongs to no series.

    Parameters
    ----------
    exposure_s
        Exposure time, s.

    Returns
    -------
    str
        The uid of the run.
    """
    ccd, shutter = instrument.ccd, instrument.shutter

    def body() -> MsgGenerator[None]:
        yield from bps.checkpoint()
        yield from bps.mv(ccd.cam.acquire_time, exposure_s)
        yield from bps.mv(ccd.frame_file, f"snapshots/{uuid.uuid4()}")
        yield from bps.mv(shutter, "open")
        yield from bps.trigger_and_read(
            [ccd, instrument.ring_current, instrument.theta, instrument.polarization]
        )

    def put_back() -> MsgGenerator[None]:
        yield from bps.mv(shutter, "closed")
        yield from bps.mv(ccd.frame_file, None)

    plan = bpp.finalize_wrapper(body(), put_back)
    uid: str = yield from bpp.stage_wrapper(
        bpp.run_wrapper(plan, md={"plan_name": "snapshot", "exposure_s": exposure_s}), [ccd]
    )
    return uid
