"""A plan's messages without an engine: nothing moves, nothing is exposed, every target is checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import bluesky.preprocessors as bpp
from bluesky import Msg
from bluesky.simulators import RunEngineSimulator
from bluesky.utils import MsgGenerator

from mistral_txm.plans.operator import planned_azimuth_deg

if TYPE_CHECKING:  # importing a plan must not import ophyd: libca reads its environment once
    from mistral_txm.devices.instrument import Instrument

USUAL_FILL = 0.5
"""How full a frame with open shutter is said to be, in parts of the saturation; a dark one is empty."""


@dataclass
class DryRun:
    """What a plan would do."""

    commands: Counter[str] = field(default_factory=Counter)
    """How many messages of each kind."""
    targets: dict[str, list[Any]] = field(default_factory=dict)
    """All values to which each device would be set, in order."""
    problems: list[str] = field(default_factory=list)
    """What would fail, a line each, each once."""

    @property
    def exposures(self) -> int:
        """How often something would be triggered."""
        return self.commands["trigger"]


def dry_run(instrument: Instrument, plan: MsgGenerator[Any]) -> DryRun:
    """Go through the messages of a plan, and answer them as if all went well.

    What was set is read back; what was not is read from the devices. A target of a device that can tell, by its
    `check_value`, whether it is allowed is checked, and so are the axes that polarization and sample position
    move. A question for an azimuth is answered with the one that is planned.
    """
    return _DryRunner(instrument).run(plan)


class _DryRunner:
    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._found = DryRun()
        self._values: dict[str, Any] = {}
        self._rewindable = True

    def run(self, plan: MsgGenerator[Any]) -> DryRun:
        simulator = RunEngineSimulator()
        answers: Mapping[str, Callable[[Msg], Any]] = {
            "set": self._set,
            "read": self._read,
            "input": lambda message: f"{planned_azimuth_deg(message.kwargs['prompt']) or 0.0:g}",
            "open_run": lambda _: f"dry run {self._found.commands['open_run']}",
            "rewindable": self._set_rewindable,
            "stage": lambda message: [message.obj],
            "unstage": lambda message: [message.obj],
        }
        for command, answer in answers.items():
            simulator.add_handler(command, answer)
        simulator.add_handler(
            "pause", lambda _: self._tell("the plan would pause, and ask for help")
        )
        try:
            simulator.simulate_plan(bpp.msg_mutator(plan, self._count))
        except Exception as failure:  # whatever it is, the plan would end with it
            self._tell(" ".join(str(failure).split()) or type(failure).__name__)
        return self._found

    def _count(self, message: Msg) -> Msg:
        self._found.commands[message.command] += 1
        return message

    def _tell(self, problem: str) -> None:
        if problem not in self._found.problems:
            self._found.problems.append(problem)

    def _set_rewindable(self, message: Msg) -> bool:
        if message.args[0] is not None:
            self._rewindable = message.args[0]
        return self._rewindable

    def _set(self, message: Msg) -> None:
        device, target = message.obj, message.args[0]
        self._found.targets.setdefault(device.name, []).append(target)
        self._values[device.name] = target
        for axis, place in self._moves(device, target):
            self._check(axis, place)

    def _moves(self, device: Any, target: Any) -> list[tuple[Any, Any]]:
        """Return the devices that a target moves, and where to."""
        its = self._instrument
        if device is its.polarization:
            places = its.configuration.polarization.of(target)
            focus = device.focus_positive_um if target > 0 else device.focus_negative_um
            return [
                (its.jaw_down, places.jaw_down_mm),
                (its.jaw_up, places.jaw_up_mm),
                (its.zone_plate_z, self._now(focus)),
            ]
        if device is its.sample_position:
            stages = {"x": its.sample_x, "y": its.sample_y, "z": its.sample_z}
            names = "xyz" if target == "in" else "xz"
            return [
                (stages[name], self._now(getattr(device, f"{target}_{name}_um"))) for name in names
            ]
        return [(device, target)]

    def _check(self, device: Any, target: Any) -> None:
        if not callable(check := getattr(device, "check_value", None)):
            return
        approach = getattr(getattr(device, "settings", None), "approach", 0.0)
        try:
            check(target)
            if approach:
                check(target - approach)
        except Exception as refusal:  # LimitError of ophyd, or what another control system has
            self._tell(str(refusal))

    def _now(self, signal: Any) -> Any:
        return self._values[signal.name] if signal.name in self._values else signal.get()

    def _read(self, message: Msg) -> dict[str, Any] | None:
        device, ccd = message.obj, self._instrument.ccd
        light = self._values.get(self._instrument.shutter.name) == "open"
        level = light * USUAL_FILL * self._instrument.configuration.ccd.saturation_counts
        answers = {ccd.mean_counts.name: level, ccd.bright_counts.name: level}
        answers |= {ccd.saturated_fraction.name: 0.0, ccd.frame_crc32.name: self._found.exposures}
        answers |= {
            self._instrument.light.trouble.name: "",
            self._instrument.light.verdict.name: "",
        }
        answers |= {self._instrument.light.injection.name: 0} | self._values
        if device.name in answers:
            return {device.name: {"value": answers[device.name], "timestamp": 0.0}}
        if device is ccd:
            return None
        read: dict[str, Any] = device.read()
        return read
