"""One exposure that counts: light is waited for, what failed is taken again, a person is asked for help."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import FailedStatus, MsgGenerator, short_uid

from mistral_txm.devices.key import Key
from mistral_txm.devices.spent import Spent
from mistral_txm.plans.exposure_control import Frame
from mistral_txm.plans.failures import cause_of, reason_of
from mistral_txm.plans.light_words import GOING_ON, repeated, waiting

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument

logger = logging.getLogger("mistral_txm.measurement")

RETRIES = 2
"""How often an exposure is tried again before a person is asked."""
ADVICE = re.compile(r"[,;:]? (then )?take the exposure again$")
"""What a device advises a person to do, and the plan does by itself."""
LIGHT_TRIES = 5
"""How often the light may be lost in one exposure before a person is asked."""
LIGHT_POLL_S = 0.5
"""Time between two looks whether light is back, s."""


class _Came(Enum):
    """What came of an attempt to expose."""

    GOOD = auto()
    DOUBTFUL = auto()
    """A frame, but perhaps not a good one."""
    UNLIT = auto()
    """A frame during which the light was lost."""
    NOTHING = auto()
    HOPELESS = auto()
    """No frame, and to try again does not help."""


def accept_all(_frame: Frame) -> str:
    """Find nothing wrong."""
    return ""


def nothing_spent(_frame: Frame) -> Spent:
    """Count nothing."""
    return Spent(0.0, 0.0, 0.0)


def expose(
    instrument: Instrument,
    stream: str,
    key: Key,
    devices: Sequence[Any],
    *,
    trouble: Callable[[Frame], str] = accept_all,
    spent: Callable[[Frame], Spent] = nothing_spent,
) -> MsgGenerator[Frame]:
    """Take one exposure that counts, and make one Event of it.

    Without light the shutter is closed and light waited for. A frame during which the light was lost
    is not recorded, and taken again when it is back, `LIGHT_TRIES` times. What the camera or the shutter
    could not do, an injection, and what `trouble` says of a frame, is tried again, `RETRIES` times; then
    the plan pauses with the shutter closed until somebody resumes it. A frame that has such a trouble even
    after that is kept, with a flag: a person has looked. A device that fails late, at whatever message,
    counts like the exposure that it disturbs.

    A pause before the frame is recorded repeats the messages from the checkpoint on, but a frame that
    was taken is handed over, not taken again. From there on nothing is repeated: the frame is on disk,
    and one Event is all that may come of it. (To read a stream that was declared before never waits,
    so a pause cannot cut it in two.)

    Parameters
    ----------
    devices
        What is read into the Event.
    trouble
        Says in one line what is wrong with a frame; an empty text if nothing is.
    spent
        Counts an accepted frame.

    Returns
    -------
    Frame
        What was accepted.
    """
    name = _name(stream, key)
    failures, unlit, asked = 0, 0, False
    while True:
        try:
            if stream != "dark":
                yield from wait_for_light(instrument, was_lost=unlit > 0)
            came, reason, frame = yield from _attempt(instrument, stream, key, trouble)
            if came is _Came.DOUBTFUL and asked:
                yield from note(instrument, "flag", f"{name}: {reason}; kept, since it stays so")
            if frame is not None and (came is _Came.GOOD or (came is _Came.DOUBTFUL and asked)):
                yield from bps.mv(instrument.budget, spent(frame))
                yield from bpp.rewindable_wrapper(record(stream, devices), False)
                return frame
            if frame is not None:
                yield from bps.mv(instrument.ccd.discard, reason)
        except FailedStatus as failure:
            came, reason = _failed(failure)
        unlit += came is _Came.UNLIT
        failures += came is not _Came.UNLIT
        if came is _Came.HOPELESS or failures > RETRIES or unlit > LIGHT_TRIES:
            yield from _until_told(ask_for_help(instrument, f"{name}: {reason}"))
            failures, unlit, asked = 0, 0, True
        else:
            text = repeated(ADVICE.sub("", reason), was_lit=came is not _Came.UNLIT)
            yield from _until_told(note(instrument, "repeat", f"{name}: {text}"))


def _attempt(
    instrument: Instrument,
    stream: str,
    key: Key,
    trouble: Callable[[Frame], str],
) -> MsgGenerator[tuple[_Came, str, Frame | None]]:
    ccd, group = instrument.ccd, short_uid("exposure")
    try:
        yield from bps.checkpoint()
        yield from bps.abs_set(instrument.key, key, group=group)
        yield from bps.abs_set(ccd.exposure_number, key.repeat, group=group)
        light = "closed" if stream == "dark" else "open"
        yield from bps.abs_set(instrument.shutter, light, group=group)
        yield from bps.wait(group)
        yield from bps.mv(instrument.light, "watch")
        yield from bps.trigger(ccd, group=group)
        yield from bps.wait(group)
    except FailedStatus as failure:
        yield from _shut(instrument)
        return *_failed(failure), None
    frame = Frame(
        mean_counts=(yield from bps.rd(ccd.mean_counts, default_value=0.0)),
        bright_counts=(yield from bps.rd(ccd.bright_counts, default_value=0)),
        saturated_fraction=(yield from bps.rd(ccd.saturated_fraction, default_value=0.0)),
        ring_current_ma=(yield from bps.rd(instrument.ring_current, default_value=0.0)),
        crc32=(yield from bps.rd(ccd.frame_crc32, default_value=0)),
        helicity=(yield from bps.rd(instrument.polarization, default_value=key.helicity)),
    )
    if stream != "dark":
        verdict = yield from bps.rd(instrument.light.verdict, default_value="")
        if verdict:
            injected = yield from bps.rd(instrument.light.injection, default_value=0)
            return _Came.DOUBTFUL if injected else _Came.UNLIT, verdict, frame
    doubt = trouble(frame)
    return _Came.DOUBTFUL if doubt else _Came.GOOD, doubt, frame


def _failed(failure: FailedStatus) -> tuple[_Came, str]:
    """Say what a failure means for the exposure, and what it says."""
    hopeless = getattr(cause_of(failure), "needs_a_person", False)
    return _Came.HOPELESS if hopeless else _Came.NOTHING, reason_of(failure)


def until_done(
    instrument: Instrument, what: str, begin: Callable[[], MsgGenerator[None]]
) -> MsgGenerator[None]:
    """Do something that a device may fail to do: a second time at once, again whenever a person says so."""
    failures = 0
    while True:
        try:
            yield from begin()
        except FailedStatus as failure:
            failures += 1
            reason = f"{what}: {reason_of(failure)}"
        else:
            return
        if failures == 1:
            yield from _until_told(note(instrument, "repeat", f"{reason}; tried again"))
        else:
            yield from _until_told(ask_for_help(instrument, reason))
            failures = 0


def _until_told(telling: MsgGenerator[None]) -> MsgGenerator[None]:
    """Tell of a failure; another device that fails meanwhile, of the same group, adds nothing to be done."""
    try:
        yield from telling
    except FailedStatus as failure:
        logger.warning("meanwhile: %s", reason_of(failure))


def wait_for_light(instrument: Instrument, *, was_lost: bool = False) -> MsgGenerator[None]:
    """Wait with the shutter closed until light can come, and has been there for the time of recovery.

    With `was_lost` that time is waited for also where the light is back already.
    """
    recovery_s = instrument.configuration.light.recovery_s
    trouble = yield from bps.rd(instrument.light.trouble, default_value="")
    if not trouble and not (was_lost and recovery_s):
        return
    why = trouble or f"the light was lost, and has to be back for {recovery_s:g} s"
    yield from note(instrument, "wait", waiting(why))
    yield from _shut(instrument)
    while True:
        while trouble:
            yield from bps.checkpoint()
            yield from bps.sleep(LIGHT_POLL_S)
            trouble = yield from bps.rd(instrument.light.trouble, default_value="")
        yield from bps.checkpoint()
        yield from bps.sleep(recovery_s)
        trouble = yield from bps.rd(instrument.light.trouble, default_value="")
        if not trouble:
            break
    yield from note(instrument, "go_on", GOING_ON)


def ask_for_help(instrument: Instrument, reason: str) -> MsgGenerator[None]:
    """Pause with the shutter closed until a person resumes the plan.

    Why is noted last: readers of the run, and the prompt, take the newest line for the reason of the pause, also where
    the shutter does not close and is told of.
    """
    yield from bps.checkpoint()  # what came before is not repeated where the closing is cut
    yield from _shut(instrument)
    yield from note(instrument, "pause", reason)
    yield from bps.checkpoint()
    yield from bps.pause()
    yield from note(instrument, "go_on", "resumed")


def note(instrument: Instrument, kind: str, text: str) -> MsgGenerator[None]:
    """Write a line into the log: the operator reads it at once, readers of the run find it in its documents."""
    yield from bps.checkpoint()
    yield from bps.mv(instrument.log, (kind, text))
    yield from bpp.rewindable_wrapper(record("log", (instrument.log,)), False)


def record(stream: str, devices: Sequence[Any]) -> MsgGenerator[None]:
    """Make one Event of the readings of devices; none at all if one of them fails."""

    def readings() -> MsgGenerator[None]:
        yield from bps.create(stream)
        for device in devices:
            yield from bps.read(device)

    def drop(failure: Exception) -> MsgGenerator[None]:
        yield from bps.drop()
        raise failure

    yield from bpp.contingency_wrapper(readings(), except_plan=drop, else_plan=bps.save)


def _shut(instrument: Instrument) -> MsgGenerator[None]:
    """Close the shutter; one that does not is told of, and stops nothing: what comes next needs it open or fails."""
    try:
        yield from bps.mv(instrument.shutter, "closed")
    except FailedStatus as failure:
        yield from note(instrument, "flag", reason_of(failure))


def _name(stream: str, key: Key) -> str:
    """Name an exposure for a person.

    >>> _name("primary", Key(102.0, -55.0, -1, 6))
    'phi 102 deg, theta -55 deg, helicity -1, repeat 7'
    """
    side = f"helicity {key.helicity:+d}" if key.helicity else "no helicity"
    if stream == "dark":
        return f"dark frame {key.repeat + 1}"
    back = "back at " if stream == "zero" else ""
    place = f"phi {key.phi_deg:g} deg, {back}theta {key.theta_deg:g} deg"
    if stream == "flat":
        place = "flat"
    return f"{place}, {side}, repeat {key.repeat + 1}"
