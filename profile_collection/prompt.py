"""What IPython adds for an operator: short commands, numbers with their units, errors of one line."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from bluesky import Msg, RunEngine
from bluesky import plan_stubs as bps
from bluesky.utils import FailedStatus, RunEngineInterrupted, TransitionError
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.sample import Azimuth
from mistral_txm.devices.shutter import Shutter
from mistral_txm.plans import snapshot
from mistral_txm.plans.failures import cause_of, not_put_back, reason_of
from mistral_txm.profile_collection.acquire import Ended, PauseReason
from mistral_txm.profile_collection.measured import Measured, measured
from mistral_txm.profile_collection.outcome import Outcome, return_told, short, told_exposures
from mistral_txm.profile_collection.session import UNTYPED
from mistral_txm.services.lifeline import ServiceError, ServiceProcess

if TYPE_CHECKING:  # a real beamline has none
    from mistral_txm.profile_collection.simulated_faults import Faults

logger = logging.getLogger("bluesky")

MONITOR_TIMEOUT_S = 60.0

UNSHOWN = ("ccd", *UNTYPED)
"""What tells of exposures, and stands nowhere: shown only where it is asked for."""


def dress(
    shell: InteractiveShell,
    RE: RunEngine,
    instrument: Instrument,
    data: Path,
    faults: Faults | None = None,
) -> None:
    """Give a prompt the commands `%wa`, `%mov`, `%movr` and `%ct`, errors of one line, and what a plan has done.

    The stack of the last error is shown by ``%tb Context``, and kept in ``logs/acquisition.log``.
    """
    commands = OperatorCommands(RE, instrument, faults)
    for command in (commands.wa, commands.mov, commands.movr, commands.ct):
        shell.register_magic_function(command)
    shell.InteractiveTB.set_mode("Minimal")
    shell.display_formatter.formatters["text/plain"].for_type(GeneratorType, _show_plan)
    reason, outcome = PauseReason(), Outcome(data)
    RE.subscribe(reason)
    RE.subscribe(outcome)

    def tell_error(
        shell: InteractiveShell, kind: type[BaseException], error: BaseException, *_: Any, **__: Any
    ) -> None:
        if isinstance(error, Ended):
            print(f"ended by {error}; everything is put back")
            shell.ask_exit()  # within a cell, IPython takes SystemExit for a mistake
        elif isinstance(error, RunEngineInterrupted):
            if RE.state == "paused":
                print(_paused(reason.text, shutter_told(instrument)))
        elif isinstance(error, TransitionError) and RE.state == "idle":
            print(
                "no plan is paused: nothing to go on with or to end; RE(resume()) takes the rest of a series"
            )
        else:
            notes = not_put_back(getattr(error, "__notes__", ()))
            print(f"{type(cause_of(error)).__name__}: {reason_of(error)}{notes}")

    def tell_outcome(*_: Any) -> None:
        try:
            if RE.state == "idle":
                for line in outcome.tell(lambda: shutter_told(instrument)):
                    print(line)
        except Exception:  # what was done is in the journal
            logger.exception("the outcome was not told")

    shell.set_custom_exc((FailedStatus, RunEngineInterrupted, TransitionError, Ended), tell_error)
    shell.events.register("post_run_cell", tell_outcome)


def greet(instrument: Instrument, data: Path, monitor: ServiceProcess) -> None:
    """Say which beamline this is, where the data go, where to watch, and what was left undone."""
    configuration = instrument.configuration
    print(
        f"{configuration.name}: {len(instrument.devices)} devices answer; {shutter_told(instrument)}"
    )
    print(f"data: {data}")
    try:
        print(f"monitor: {monitor.wait_ready(MONITOR_TIMEOUT_S)['uri']}")
    except ServiceError as error:
        print(f"monitor: does not run; measuring goes on without ({reason_of(error)})")
    undone = [each for each in measured(data) if each.lacks]
    for each in undone[-1:]:
        others = len(undone) - 1
        more = f"; {others} older series are not complete either: status()" if others else ""
        print(
            f"interrupted: series {each.uid} of {each.measurement.sample.name}, {_lacking(each)}: "
            f"RE(resume({short(each.uid)!r})) takes the rest{more}"
        )


def _lacking(one: Measured) -> str:
    """Say what a measurement lacks; returns to zero tilt are told of where nothing else is missing."""
    if missing := sum(one.missing().values()):
        return f"{told_exposures(missing)} missing"
    return return_told([key for keys in one.open_returns().values() for key in keys])


def _show_plan(plan: Any, printer: Any, _cycle: bool) -> None:
    """Show a plan that was typed without `RE` by what is to be typed; any other generator as Python does."""
    module = plan.gi_frame.f_globals.get("__name__", "") if plan.gi_frame else ""
    if module.startswith(("mistral_txm.", "bluesky.")):
        printer.text("a plan, and nothing has happened yet: run it with RE(...)")
    else:
        printer.text(repr(plan))


def _paused(reason: str, shutter: str) -> str:
    """Say in one line that a plan is paused, and what can be done now.

    >>> _paused("ccd: no frame within 38 s", "the shutter is closed")
    'paused: ccd: no frame within 38 s; the shutter is closed; RE.resume() when it is put right, RE.abort() to end'
    >>> _paused("", "the shutter is closed")
    'paused; the shutter is closed; RE.resume() to go on, RE.abort() to end'
    """
    if not reason:
        return f"paused; {shutter}; RE.resume() to go on, RE.abort() to end"
    return f"paused: {reason}; {shutter}; RE.resume() when it is put right, RE.abort() to end"


def shutter_told(instrument: Instrument) -> str:
    """Say how the shutter stands."""
    try:
        is_open = instrument.shutter.is_open
    except Exception:  # its control server does not answer
        return "how the shutter stands is not known: look at it"
    return "THE SHUTTER IS OPEN" if is_open else "the shutter is closed"


class OperatorCommands:
    """The commands that operators of Bluesky know, for the devices of one instrument."""

    def __init__(self, RE: RunEngine, instrument: Instrument, faults: Faults | None) -> None:
        self._RE = RE
        self._instrument = instrument
        self._faults = faults

    def wa(self, line: str) -> None:
        """Show where all devices are, or those that are named: ``%wa theta energy``.

        Of all devices of a simulated beamline: also which faults are on.
        """
        devices = self._instrument.devices
        names = line.split() or [name for name in devices if name not in UNSHOWN]
        for name in names:
            print(f"{name:<16} {_where(self._device(name))}")
        if self._faults is not None and not line:
            faults = ", ".join(f"{name} = {value:g}" for name, value in self._faults.on.items())
            print(f"{'faults':<16} {faults or 'none'}")

    def mov(self, line: str) -> None:
        """Move devices, all at once: ``%mov theta 5 energy 707.4``, ``%mov sample_position out``."""
        self._move(line, relative=False)

    def movr(self, line: str) -> None:
        """Move axes by a distance: ``%movr theta -5``."""
        self._move(line, relative=True)

    def ct(self, line: str) -> None:
        """Expose once where everything stands: ``%ct`` for 1 s, ``%ct 8`` for 8 s."""
        try:
            exposure_s = float(line or 1.0)
        except ValueError:
            raise UsageError(
                f"{line!r}: expected an exposure time in seconds, such as %ct 8"
            ) from None
        if self._run(snapshot(self._instrument, exposure_s)):
            ccd = self._instrument.ccd
            print(
                f"{exposure_s:g} s: {ccd.mean_counts.get():.0f} counts on average, "
                f"{100 * ccd.saturated_fraction.get():.2g} % saturated, "
                f"ring current {self._instrument.ring_current.get():.1f} mA"
            )

    def _device(self, name: str) -> Any:
        try:
            return self._instrument.devices[name]
        except KeyError:
            known = ", ".join(self._instrument.devices)
            raise UsageError(f"{name!r}: no such device; there are {known}") from None

    def _move(self, line: str, *, relative: bool) -> None:
        words = line.split()
        if not words or len(words) % 2:
            raise UsageError("expected pairs of device and position, such as: theta 5")
        targets = []
        for name, text in zip(words[::2], words[1::2], strict=True):
            device, target = self._device(name), _target(text)
            if not hasattr(device, "set"):
                raise UsageError(f"{name}: cannot be moved")
            if isinstance(device, Shutter) and target == "open":
                raise UsageError(
                    f"every plan leaves the {name} closed: %ct opens it for one exposure, "
                    f"{name}.set('open') until the next plan"
                )
            if relative:
                if not hasattr(device, "position") or isinstance(target, str):
                    raise UsageError(f"{name} {text}: cannot be moved by a distance")
                target += device.position
            targets.append((device, target))
        if self._run(bps.mv(*(word for pair in targets for word in pair))):
            for device, _ in targets:
                print(f"{device.name:<16} {_where(device)}")

    def _run(self, plan: Iterator[Msg]) -> bool:
        """Run a plan to its end; tell whether it got there. Ctrl-C ends it and stops what moves."""
        if self._RE.state != "idle":
            raise UsageError(
                f"a plan is {self._RE.state}: RE.resume() goes on with it, RE.abort() ends it"
            )
        try:
            self._RE(plan)
        except RunEngineInterrupted:
            if self._RE.state == "paused":
                self._RE.abort(reason="ended by the operator")
            print(f"interrupted; {shutter_told(self._instrument)}")
            return False
        return True


def _target(text: str) -> float | str:
    """Take a number for a number and anything else for the name of a position.

    >>> _target("-1"), _target("open")
    (-1.0, 'open')
    """
    try:
        return float(text)
    except ValueError:
        return text


def _where(device: Any) -> str:
    """Say where a device is, with its unit, and between which limits where it has some."""
    if hasattr(device, "position"):
        settings = device.settings
        return (
            f"{device.position:.4f} {settings.unit}".ljust(18)
            + f" {settings.low_limit:g} to {settings.high_limit:g} {settings.unit}"
        )
    if isinstance(device, Azimuth):
        if math.isnan(device.phi_deg):
            return "nobody has said how the sample is mounted: %mov azimuth 0, say"
        given = datetime.fromtimestamp(device.given_at_s.get())
        return f"{device.phi_deg:g} deg, as said on {given:%a %d %b, %H:%M}"
    described = device.describe()
    return ", ".join(
        _told(reading["value"], described[name]) for name, reading in device.read().items()
    )


def _told(value: Any, described: dict[str, Any]) -> str:
    """Say a value with its unit, or the name of a state.

    >>> _told(247.0301928, {"units": "mA"}), _told(1, {"enum_strs": ("Closed", "Open")})
    ('247.03 mA', 'Open')
    """
    states = described.get("enum_strs")
    if states and isinstance(value, int):
        return str(states[value])
    if isinstance(value, float):
        value = "unknown" if math.isnan(value) else f"{value:.6g}"
    return f"{value} {described.get('units') or ''}".rstrip()
