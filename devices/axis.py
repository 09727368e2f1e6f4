"""Motors that must arrive where they were sent."""

import math
from typing import Any

from ophyd import Component, EpicsMotor, EpicsSignal
from ophyd.utils import LimitError

from mistral_txm.devices.configuration import Axis as AxisSettings
from mistral_txm.devices.motion import Motion, last_seen


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

        self._motion = Motion(self, steps)
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

    def wait_in(self, motion: Motion, status: Motion) -> None:
        """Let a composite device wait for a move of this axis.

        The move fails by itself after its own time; the limit here covers its approach, too.
        """
        motion.wait_for(
            status,
            3 * self.settings.timeout_s,
            lambda: f"{self.name}: does not answer; check the motor {self.prefix}",
        )

    def _move_and_check(self, motion: Motion, target: float) -> None:
        settings = self.settings
        motion.check()

        def complaint() -> str:
            return (
                f"{self.name}: the move to {target} {settings.unit} failed or did not end within "
                f"{settings.timeout_s} s; {last_seen(self.user_readback, settings.unit)}; "
                f"check the motor {self.prefix}"
            )

        motion.wait_for(self.move(target, wait=False), settings.timeout_s, complaint)
        if not self.is_at(target):
            # The monitor may be a little late: ask.
            found = float(self.user_readback.get(use_monitor=False))
            if not abs(found - target) <= settings.tolerance:
                raise RuntimeError(
                    f"{self.name}: the move ended at {found} {settings.unit}, expected {target} "
                    f"+- {settings.tolerance}; check the motor {self.prefix}"
                )
