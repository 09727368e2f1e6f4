"""Motors that must arrive where they were sent."""

import math
import threading
from collections.abc import Sequence
from typing import Any

from ophyd import Component, EpicsMotor, EpicsSignal
from ophyd.utils import LimitError

from mistral_txm.devices.configuration import Axis as AxisSettings
from mistral_txm.devices.motion import Motion, last_seen

MONITOR_TIMEOUT_S = 1.0
"""How much later than the end of a move its last readback may arrive."""


class Axis(EpicsMotor):  # type: ignore[misc]  # ophyd is untyped
    """A motor record whose finished move is checked against its target.

    A move that ends further than `tolerance` from its target fails, whatever the record says. An
    axis with an `approach` takes up its backlash: it arrives from below, at least that far.
    """

    user_setpoint = Component(EpicsSignal, ".VAL", limits=True, auto_monitor=True, kind="omitted")

    def __init__(self, prefix: str, *, name: str, settings: AxisSettings) -> None:
        super().__init__(prefix, name=name)
        self.settings = settings
        self._motion: Motion | None = None

    def set(self, new_position: float, **_: Any) -> Motion:
        """Start a move; the status fails if the axis does not arrive.

        Raises
        ------
        LimitError
            If the target, or where its approach would begin, lies outside the limits.
        """
        target = float(new_position)
        self.check_value(target)
        approach = self.settings.approach
        if approach and target - approach < self.settings.low_limit:
            raise LimitError(
                f"{self.name}: {target} {self.settings.unit} is closer than {approach} "
                f"{self.settings.unit} to the low limit, but is always approached from below: "
                f"lowest target {self.settings.low_limit + approach}"
            )

        def steps(motion: Motion) -> None:
            if approach and target - self.position < approach:
                self._move_and_check(motion, target - approach)
            self._move_and_check(motion, target)

        self._motion = Motion(self, steps, after=self._motion)
        return self._motion

    def stop(self, *, success: bool = False) -> None:
        """Stop where it is; a move in progress ends, as a success if `success`."""
        if self._motion is not None:
            self._motion.interrupt(success=success)
        super().stop(success=success)

    def check_value(self, pos: float) -> None:
        """Check a target against the limits of the configuration and of the motor record.

        Raises
        ------
        LimitError
            If it is not a finite number between them.
        """
        settings = self.settings
        if not (math.isfinite(pos) and settings.low_limit <= pos <= settings.high_limit):
            raise LimitError(
                f"{self.name}: {pos} {settings.unit} is not within the configured limits, "
                f"{settings.low_limit} to {settings.high_limit} {settings.unit}"
            )
        low, high = self.limits
        if low < high and not low <= pos <= high:
            raise LimitError(
                f"{self.name}: {pos} {settings.unit} is not within the limits of {self.prefix}, "
                f"{low} to {high} {settings.unit}"
            )

    def is_at(self, position: float) -> bool:
        """Tell whether the readback agrees with a position, within the tolerance."""
        return bool(abs(self.position - position) <= self.settings.tolerance)

    def _move_and_check(self, motion: Motion, target: float) -> None:
        settings = self.settings
        ended = threading.Event()

        def end(**_: Any) -> None:
            ended.set()
            motion.notify()

        watch = self.user_readback.subscribe(motion.notify, run=False)
        try:
            with motion.uninterrupted():
                # The put completes when the motion has ended, however it ended. (The record's DMOV
                # would tell, too, but a fast motion may be over before its monitor says so.)
                self.user_setpoint.put(target, use_complete=True, callback=end)
            if not motion.wait_until(ended.is_set, settings.timeout_s):
                raise TimeoutError(
                    f"{self.name}: the move to {target} {settings.unit} did not end within "
                    f"{settings.timeout_s} s; {last_seen(self.user_readback, settings.unit)}; "
                    f"check the motor {self.prefix}"
                )
            # The readback may arrive a little later than the end of the motion.
            if not motion.wait_until(lambda: self.is_at(target), MONITOR_TIMEOUT_S):
                raise RuntimeError(
                    f"{self.name}: the move ended at {self.position} {settings.unit}, expected "
                    f"{target} +- {settings.tolerance}; check the motor {self.prefix}"
                )
        finally:
            self.user_readback.unsubscribe(watch)


def move_together(motion: Motion, targets: Sequence[tuple[Axis, float]]) -> bool:
    """Move those axes that are not at their targets, all at once, as a step of another device.

    Returns
    -------
    bool
        Whether anything had to move.
    """
    with motion.uninterrupted():
        started = [axis.set(target) for axis, target in targets if not axis.is_at(target)]
    for status in started:
        status.wait()  # an axis ends by itself, after its own time at the latest
        motion.check()
    return bool(started)
