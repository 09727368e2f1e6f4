"""Runs of exposures, and everything around them that has to be put back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.utils import FailedStatus, MsgGenerator, RunEngineControlException, short_uid

from mistral_txm.devices.key import Key
from mistral_txm.plans.checks import disk_trouble
from mistral_txm.plans.exposing import ask_for_help, expose, note, record, until_done
from mistral_txm.plans.exposure_control import SATURATED_FRACTION, Seen
from mistral_txm.plans.failures import reason_of
from mistral_txm.plans.measurement import ExposureControl, Measurement
from mistral_txm.plans.opened_runs import in_run, opened_runs, repeatable
from mistral_txm.plans.steps import Step

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument


SPARE_ANGLES = 3
"""A measurement asks for room before its disk has less than this many angles need."""


def columns(instrument: Instrument) -> tuple[Any, ...]:
    """Return what is read into every Event."""
    return (
        instrument.ccd,
        instrument.ring_current,
        instrument.theta,
        instrument.polarization,
        instrument.key,
        instrument.light,
        instrument.budget,
    )


def moved(instrument: Instrument) -> tuple[Any, ...]:
    """Return the axes and settings that a run changes, and puts back; settings first."""
    place = instrument.sample_position
    return (
        place.in_x_um,
        place.in_y_um,
        place.in_z_um,
        instrument.polarization.focus_positive_um,
        instrument.polarization.focus_negative_um,
        instrument.polarization.focus_energy_eV,
        instrument.theta,
        instrument.sample_x,
        instrument.sample_y,
        instrument.sample_z,
        instrument.zone_plate_z,
        instrument.jaw_down,
        instrument.jaw_up,
        instrument.energy,
    )


def set_up(instrument: Instrument, measurement: Measurement) -> MsgGenerator[None]:
    """Bring energy, focus and the sample's place to those of a measurement; what it leaves open stays."""
    group = short_uid("set up")
    yield from bps.checkpoint()
    if (place := measurement.sample.place) is not None:
        for name, target_um in place.model_dump().items():
            signal = getattr(instrument.sample_position, f"in_{name}")
            yield from bps.abs_set(signal, target_um, group=group)
    if (focus := measurement.focus) is not None:
        polarization = instrument.polarization
        yield from bps.abs_set(polarization.focus_positive_um, focus.positive_um, group=group)
        yield from bps.abs_set(polarization.focus_negative_um, focus.negative_um, group=group)
        energy_ev = measurement.energies_ev[0]
        yield from bps.abs_set(polarization.focus_energy_eV, energy_ev, group=group)
    yield from bps.wait(group)
    yield from change_energy(instrument, measurement.energies_ev[0])


def change_energy(instrument: Instrument, energy_ev: float) -> MsgGenerator[None]:
    """Move the monochromator, and let the focus of both helicities follow from where it is known to hold.

    ``dz = chromatic * dE``
    """
    polarization = instrument.polarization
    held_ev = yield from bps.rd(polarization.focus_energy_eV, default_value=energy_ev)
    shift_um = instrument.configuration.polarization.chromatic_um_per_eV * (energy_ev - held_ev)
    targets: list[tuple[Any, float]] = [(polarization.focus_energy_eV, energy_ev)]
    for signal in (polarization.focus_positive_um, polarization.focus_negative_um):
        now_um = yield from bps.rd(signal, default_value=0.0)
        targets.append((signal, now_um + shift_um))
    group = short_uid("energy")
    yield from bps.checkpoint()
    for signal, target in (*targets, (instrument.energy, energy_ev)):
        yield from bps.abs_set(signal, target, group=group)
    yield from bps.wait(group)


def take(
    instrument: Instrument,
    folder: str,
    step: Step,
    control: ExposureControl | None,
    seen: Seen,
) -> MsgGenerator[None]:
    """Bring the beamline to the state of a step and take its exposures into one file.

    The shutter opens for the first exposure of a file and closes after its last; for dark frames it
    stays closed. What does not arrive is moved once more, then a person is asked; so it is where the disk
    is nearly full. With `control`, the counts that were seen choose the exposure time and end the repeats; an
    exposure that is saturated is taken again, and those after it are taken, with a shorter time if there is one.
    """
    exposure_s = yield from _chosen_s(instrument, step, control, seen)
    file_name = f"{folder}/{step.file_name}"

    def arrive() -> MsgGenerator[None]:
        group = short_uid("state")
        yield from bps.checkpoint()
        if step.stream != "dark":
            place = "out" if step.stream == "flat" else "in"
            yield from bps.abs_set(instrument.sample_position, place, group=group)
            yield from bps.abs_set(instrument.theta, step.theta_deg, group=group)
            yield from bps.abs_set(instrument.polarization, step.helicity, group=group)
        yield from open_file(instrument, file_name, exposure_s, group)

    def exposures() -> MsgGenerator[None]:
        time_s, told = exposure_s, False
        for key in step.keys:
            while True:
                frame = yield from expose(
                    instrument,
                    step.stream,
                    key,
                    columns(instrument),
                    trouble=partial(seen.trouble, step, time_s),
                    spent=partial(seen.add, step, key.repeat, time_s),
                )
                if frame.saturated_fraction <= SATURATED_FRACTION:
                    break
                what = saturation(step, time_s, frame.saturated_fraction)
                shorter_s = yield from _chosen_s(instrument, step, control, seen)
                if shorter_s >= time_s:
                    if not told:
                        yield from note(instrument, "flag", f"{what}; expose shorter")
                    told = True
                    break
                time_s = shorter_s
                text = f"{what}; taken again, and exposed for {time_s:g} s from here on"
                yield from note(instrument, "repeat", text)
                change = partial(_set_time, instrument, time_s)
                yield from until_done(instrument, step.file_name, change)
            if step.stream == "primary" and seen.is_enough(step, key.repeat + 1, control):
                yield from _waive(instrument, step, key)
                break

    ccd = instrument.ccd
    angle_bytes = 2 * len(step.repeats) * ccd.frame_bytes
    while full := disk_trouble(ccd.frames_directory, SPARE_ANGLES * angle_bytes):
        yield from ask_for_help(instrument, full)
    yield from until_done(instrument, step.file_name, arrive)
    yield from exposures()
    yield from until_done(instrument, step.file_name, partial(close_file, instrument))


def _chosen_s(
    instrument: Instrument, step: Step, control: ExposureControl | None, seen: Seen
) -> MsgGenerator[float]:
    """Choose the exposure time of a step by what was seen, and by the current in the ring now."""
    ring_current_ma = yield from bps.rd(instrument.ring_current, default_value=0.0)
    return seen.exposure_s(step, control, ring_current_ma)


def _set_time(instrument: Instrument, exposure_s: float) -> MsgGenerator[None]:
    """Set the exposure time within an open file, with the shutter as it stands."""
    yield from bps.checkpoint()
    yield from bps.mv(instrument.ccd.cam.acquire_time, exposure_s)


def saturation(step: Step, exposure_s: float, fraction: float) -> str:
    """Tell of saturated pixels."""
    what = "flat" if step.stream == "flat" else f"theta {step.theta_deg:g} deg"
    return (
        f"{what}, helicity {step.helicity:+d}: {100 * fraction:.2g} % of the pixels are saturated at "
        f"{exposure_s:g} s"
    )


def _waive(instrument: Instrument, step: Step, last: Key) -> MsgGenerator[None]:
    """Record that the repeats after the last one are not needed, if there are any."""
    if last == step.keys[-1]:
        return
    first = last._replace(repeat=last.repeat + 1)
    yield from note(
        instrument,
        "note",
        f"theta {step.theta_deg:g} deg, helicity {step.helicity:+d}: signal to noise reached after "
        f"{first.repeat} of {step.keys[-1].repeat + 1} repeats",
    )
    yield from bps.mv(instrument.waived, first)
    yield from bpp.rewindable_wrapper(record("waived", (instrument.waived,)), False)


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
    yield from open_file(instrument, file_name, exposure_s, group)
    for key in keys:
        yield from expose(instrument, stream, key, devices)
    yield from close_file(instrument)


def open_file(
    instrument: Instrument, file_name: str, exposure_s: float, group: str
) -> MsgGenerator[None]:
    """Set the exposure time and open a file while the moves of a group go on; wait for all."""
    yield from bps.abs_set(instrument.ccd.cam.acquire_time, exposure_s, group=group)
    yield from bps.abs_set(instrument.ccd.frame_file, file_name, group=group)
    yield from bps.wait(group)


def close_file(instrument: Instrument) -> MsgGenerator[None]:
    """Close shutter and file."""
    group = short_uid("close")
    yield from bps.checkpoint()
    yield from bps.abs_set(instrument.shutter, "closed", group=group)
    yield from bps.abs_set(instrument.ccd.frame_file, None, group=group)
    yield from bps.wait(group)


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
    uids: dict[Hashable, str] = yield from whole_runs(
        instrument, {None: metadata}, lambda uids: body(uids[None])
    )
    return uids[None]


def whole_runs(
    instrument: Instrument,
    metadata: Mapping[Hashable, Mapping[str, Any]],
    body: Callable[[dict[Hashable, str]], MsgGenerator[None]],
) -> MsgGenerator[dict[Hashable, str]]:
    """Open runs side by side, do what `body` makes of their uids, put everything back, close the runs.

    Parameters
    ----------
    metadata
        By the key of each run: what `in_run` takes.

    Returns
    -------
    dict
        The uids of the runs, by their keys.
    """
    yield from repeatable()
    whole = opened_runs(metadata, lambda uids: put_back(instrument, body(uids), tuple(metadata)))
    uids: dict[Hashable, str] = yield from bpp.stage_wrapper(whole, [instrument.ccd])
    return uids


def put_back(
    instrument: Instrument, plan: MsgGenerator[None], runs: Sequence[Hashable] = (None,)
) -> MsgGenerator[None]:
    """Run a plan between two readings of the baseline, and put back what it moved.

    Shutter and frame file are closed and the axes moved back also after a failure. If something
    cannot be put back, the rest still is. The failure of the plan stays the failure that is
    reported; what could not be put back is added to it as notes.

    Raises
    ------
    RuntimeError
        If the plan succeeded, but not everything could be put back: one line.
    """
    yield from _baseline(instrument, runs)
    before = {}
    for axis in moved(instrument):
        before[axis] = yield from bps.rd(axis)
    failure = None
    try:
        yield from plan
    except Exception as reason:  # an abort is one, too; raised again below
        failure = reason
    complaints = yield from _restore(instrument, before, runs)
    if failure is not None:
        for complaint in complaints:
            failure.add_note(complaint)
        raise failure
    if complaints:
        raise RuntimeError("not everything was put back: " + "; ".join(complaints))


def _restore(
    instrument: Instrument, before: Mapping[Any, float], runs: Sequence[Hashable]
) -> MsgGenerator[list[str]]:
    complaints = []

    def move_all(targets: Iterable[tuple[Any, Any]]) -> MsgGenerator[None]:
        started = []
        for device, target in targets:
            group = short_uid("restore")
            try:
                yield from bps.abs_set(device, target, group=group)
            except (
                Exception
            ) as reason:  # perhaps of another device; the others still have to be put back
                complaints.append(_complaint(device, reason))
            started.append((device, group))
        for device, group in started:
            try:
                yield from bps.wait(group)
            except Exception as reason:  # as above
                complaints.append(_complaint(device, reason))

    try:
        yield from repeatable()
    except Exception as reason:  # of a move that was begun before, or the wish of a person
        complaints.append(reason_of(reason))
        yield from repeatable()
    yield from move_all([(instrument.shutter, "closed")])
    yield from move_all([(instrument.ccd.frame_file, None), *before.items()])
    try:
        yield from _baseline(instrument, runs)
    except RunEngineControlException:  # a person ends the plan: everything is put back already
        raise
    except Exception as reason:  # a run may end without it
        complaints.append(f"baseline: {reason_of(reason)}")
    return complaints


def _baseline(instrument: Instrument, runs: Sequence[Hashable]) -> MsgGenerator[None]:
    for key in runs:
        yield from bps.checkpoint()
        yield from in_run(key, record("baseline", instrument.baseline))


def _complaint(device: Any, reason: Exception) -> str:
    """Say what could not be put back: the engine tells of a failure at any later message, also of another device."""
    status = reason.args[0] if isinstance(reason, FailedStatus) and reason.args else None
    return f"{getattr(status, 'device', device).name}: {reason_of(reason)}"
