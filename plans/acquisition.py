"""Exposures, and everything around them that has to be put back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import Msg
from bluesky.utils import FailedStatus, MsgGenerator, RunEngineControlException, short_uid

from mistral_txm.devices.key import Key
from mistral_txm.plans.measurement import Step

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


class PlanError(ValueError):
    """A plan cannot be carried out; found before anything moved, one line."""


def columns(instrument: Instrument) -> tuple[Any, ...]:
    """Return what is read into every Event."""
    return (
        instrument.ccd,
        instrument.ring_current,
        instrument.theta,
        instrument.polarization,
        instrument.key,
    )


def moved(instrument: Instrument) -> tuple[Any, ...]:
    """Return the axes and settings that a run changes, and puts back."""
    return (
        instrument.theta,
        instrument.sample_x,
        instrument.sample_y,
        instrument.sample_z,
        instrument.zone_plate_z,
        instrument.jaw_down,
        instrument.jaw_up,
        instrument.energy,
        instrument.polarization.focus_positive_um,
        instrument.polarization.focus_negative_um,
    )


def take(instrument: Instrument, folder: str, step: Step) -> MsgGenerator[None]:
    """Bring the beamline to the state of a step and take its exposures into one file.

    The shutter is open during the exposures alone, and not at all for dark frames.
    """
    group = short_uid("state")
    yield from bps.checkpoint()
    if step.stream != "dark":
        place = "out" if step.stream == "flat" else "in"
        yield from bps.abs_set(instrument.sample_position, place, group=group)
        yield from bps.abs_set(instrument.theta, step.theta_deg, group=group)
        yield from bps.abs_set(instrument.polarization, step.helicity, group=group)
    file_name = f"{folder}/{step.file_name}"
    yield from expose_into(
        instrument, file_name, step.exposure_s, step.stream, step.keys, group, columns(instrument)
    )


def expose_into(
    instrument: Instrument,
    file_name: str,
    exposure_s: float,
    stream: str,
    keys: Iterable[Key],
    group: str,
    devices: Sequence[Any],
) -> MsgGenerator[None]:
    """Open a file, take one exposure for each key once the moves of a group have ended, close it.

    Every Event has the readings of `devices`. Shutter and file are closed at the end.
    """
    yield from bps.abs_set(instrument.ccd.cam.acquire_time, exposure_s, group=group)
    yield from bps.abs_set(instrument.ccd.frame_file, file_name, group=group)
    yield from bps.wait(group)
    for key in keys:
        yield from _expose(instrument, stream, key, devices)
    yield from bps.checkpoint()
    yield from bps.abs_set(instrument.shutter, "closed", group=group)
    yield from bps.abs_set(instrument.ccd.frame_file, None, group=group)
    yield from bps.wait(group)


def _expose(
    instrument: Instrument, stream: str, key: Key, devices: Sequence[Any]
) -> MsgGenerator[None]:
    """Expose once, and make one Event of it.

    A pause before the frame is taken repeats the messages from the checkpoint on. From there on
    nothing is repeated: the frame is on disk, and one Event is all that may come of it. (To read
    a stream that was declared before never waits, so a pause cannot cut it in two.)
    """
    group = short_uid("exposure")
    yield from bps.checkpoint()
    yield from bps.abs_set(instrument.key, key, group=group)
    light = "closed" if stream == "dark" else "open"
    yield from bps.abs_set(instrument.shutter, light, group=group)
    yield from bps.wait(group)
    yield from bps.trigger(instrument.ccd, group=group)
    yield from bps.wait(group)
    yield from bpp.rewindable_wrapper(_record(stream, devices), False)


def _record(stream: str, devices: Sequence[Any]) -> MsgGenerator[None]:
    def readings() -> MsgGenerator[None]:
        for device in devices:
            yield from bps.read(device)

    def drop(failure: Exception) -> MsgGenerator[None]:
        yield from bps.drop()
        raise failure

    yield from bps.create(stream)
    yield from bpp.contingency_wrapper(readings(), except_plan=drop, else_plan=bps.save)


def series_run(
    instrument: Instrument, folder: str, taken: Sequence[Step], metadata: Mapping[str, Any]
) -> MsgGenerator[str]:
    """Take steps as one run, baseline before and after, everything put back whatever happens.

    Returns
    -------
    str
        The uid of the run.
    """

    def body(_uid: str) -> MsgGenerator[None]:
        for stream in dict.fromkeys(step.stream for step in taken):
            yield from bps.declare_stream(*columns(instrument), name=stream)
        yield from bps.checkpoint()
        yield from bps.mv(instrument.energy, metadata["measurement"]["energy_ev"])
        for step in taken:
            yield from take(instrument, folder, step)

    uid = yield from whole_run(instrument, metadata, body)
    return uid


def whole_run(
    instrument: Instrument,
    metadata: Mapping[str, Any],
    body: Callable[[str], MsgGenerator[None]],
) -> MsgGenerator[str]:
    """Open a run, do what `body` makes of its uid, put everything back, close the run.

    Returns
    -------
    str
        The uid of the run.
    """

    def run() -> MsgGenerator[str]:
        uid: str = yield from bps.open_run(dict(metadata))

        def close(failure: Exception) -> MsgGenerator[None]:
            if isinstance(failure, RunEngineControlException):
                yield from bps.close_run(exit_status=failure.exit_status)
            else:
                yield from bps.close_run(exit_status="fail", reason=str(failure))

        yield from bpp.contingency_wrapper(
            put_back(instrument, body(uid)), except_plan=close, else_plan=bps.close_run
        )
        return uid

    yield from _repeatable()
    uid: str = yield from bpp.stage_wrapper(run(), [instrument.ccd])
    return uid


def put_back(instrument: Instrument, plan: MsgGenerator[None]) -> MsgGenerator[None]:
    """Run a plan between two readings of the baseline, and put back what it moved.

    Shutter and frame file are closed and the axes moved back also after a failure. If something
    cannot be put back, the rest still is. The failure of the plan stays the failure that is
    reported; what could not be put back is added to it as notes.

    Raises
    ------
    RuntimeError
        If the plan succeeded, but not everything could be put back: one line.
    """
    yield from _baseline(instrument)
    before = {}
    for axis in moved(instrument):
        before[axis] = yield from bps.rd(axis)
    failure = None
    try:
        yield from plan
    except Exception as reason:  # an abort is one, too; raised again below
        failure = reason
    complaints = yield from _restore(instrument, before)
    if failure is not None:
        for complaint in complaints:
            failure.add_note(complaint)
        raise failure
    if complaints:
        raise RuntimeError("not everything was put back: " + "; ".join(complaints))


def _restore(instrument: Instrument, before: Mapping[Any, float]) -> MsgGenerator[list[str]]:
    complaints = []

    def move_all(targets: Iterable[tuple[Any, Any]]) -> MsgGenerator[None]:
        started = []
        for device, target in targets:
            group = short_uid("restore")
            try:
                yield from bps.abs_set(device, target, group=group)
            except Exception as reason:  # the others still have to be put back
                complaints.append(_complaint(device, reason))
            else:
                started.append((device, group))
        for device, group in started:
            try:
                yield from bps.wait(group)
            except Exception as reason:  # as above
                complaints.append(_complaint(device, reason))

    yield from _repeatable()
    yield from move_all([(instrument.shutter, "closed")])
    yield from move_all([(instrument.ccd.frame_file, None), *before.items()])
    try:
        yield from _baseline(instrument)
    except Exception as reason:  # a run may end without it
        complaints.append(f"baseline: {_cause(reason)}")
    return complaints


def _repeatable() -> MsgGenerator[None]:
    """Let a pause repeat the messages from here on, and none from before.

    A plan that ended inside an exposure may have left repetition off, or an Event open, where a
    checkpoint is not allowed.
    """
    yield Msg("rewindable", None, False)
    yield Msg("rewindable", None, True)


def _baseline(instrument: Instrument) -> MsgGenerator[None]:
    yield from bps.checkpoint()
    yield from _record("baseline", instrument.baseline)


def _cause(reason: Exception) -> str:
    return str(reason.__cause__ or reason)


def _complaint(device: Any, reason: Exception) -> str:
    """Say what could not be put back: the engine tells of a failure at any later message, also of another device."""
    status = reason.args[0] if isinstance(reason, FailedStatus) and reason.args else None
    return f"{getattr(status, 'device', device).name}: {_cause(reason)}"
