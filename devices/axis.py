"""Motors that must arrive where they were sent."""

import math
import threading
from typing import Any

from ophyd import Component, EpicsMotor, EpicsSignal, EpicsSignalRO
from ophyd.utils import LimitError

from mistral_txm.devices.configuration import Axis as AxisSettings
from mistral_txm.devices.motion import Motion, last_seen

MONITOR_TIMEOUT_S = 1.0
"""How much later than the end of a move its last readback may arrive."""

# The bits of a motor record's field MSTA, as its documentation lists them
_DIRECTION, _PLUS_LIMIT, _MINUS_LIMIT = 0x0001, 0x0004, 0x2000
_SLIP_STALL, _PROBLEM, _COMMUNICATION = 0x0040, 0x0200, 0x1000
_INVALID = 3


class Axis(EpicsMotor):  # type: ignore[misc]  # ophyd is untyped
    """A motor record whose finished move is checked against its target.

    A move that ends further than `tolerance` from its target fails, whatever the record says; so
    does one after which the record tells of a problem, a stall, a limit switch in the way or an
    invalid alarm. One that does not end in time is stopped. A record that would not move (SPMG), or
    would take the target for a calibration (SET), is not asked. An axis with an `approach` takes up
    its backlash: it arrives from below, at least that far; where it has arrived so, and stands still
    there, it is not moved again.
    """

    user_setpoint = Component(EpicsSignal, ".VAL", limits=True, auto_monitor=True, kind="omitted")
    status_bits = Component(EpicsSignalRO, ".MSTA", kind="omitted")
    move_permission = Component(
        EpicsSignalRO, ".SPMG", string=True, auto_monitor=True, kind="omitted"
    )

    def __init__(self, prefix: str, *, name: str, settings: AxisSettings) -> None:
        super().__init__(prefix, name=name)
        self.settings = settings
        self._motion: Motion | None = None
        self._arrived_at: float | None = None

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
            arrived_at, self._arrived_at = self._arrived_at, None
            asked_for = self.user_setpoint.get(use_monitor=False)
            if not (approach and arrived_at == target == asked_for and self.is_at(target)):
                if approach and target - self._readback() < approach:
                    self._move_and_check(motion, target - approach)
                self._move_and_check(motion, target)
            self._arrived_at = target

        self._motion = Motion(self, steps, after=self._motion)
        return self._motion.start()

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
        return bool(abs(self._readback() - position) <= self.settings.tolerance)

    def _readback(self) -> float:
        """Where it is; until the first update has come `position` is None, and it is asked."""
        return float(self.user_readback.get() if self.position is None else self.position)

    def _move_and_check(self, motion: Motion, target: float) -> None:
        settings = self.settings
        self._check_that_it_obeys()
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
                seen = last_seen(self.user_readback, settings.unit)
                self.motor_stop.put(1, wait=False)
                raise TimeoutError(
                    f"{self.name}: the move to {target} {settings.unit} did not end within "
                    f"{settings.timeout_s} s, and was stopped; {seen}; "
                    f"{self._complaint() or f'check the motor {self.prefix}'}"
                )
            complaint = self._complaint()
            # The readback may arrive a little later than the end of the motion.
            if complaint or not motion.wait_until(lambda: self.is_at(target), MONITOR_TIMEOUT_S):
                position = self.user_readback.get(use_monitor=False)
                raise RuntimeError(
                    f"{self.name}: the move ended at {position} {settings.unit}, expected "
                    f"{target} +- {settings.tolerance}; "
                    f"{complaint or f'check the motor {self.prefix}'}"
                )
        finally:
            self.user_readback.unsubscribe(watch)

    def _check_that_it_obeys(self) -> None:
        permission = self.move_permission.get()
        if permission in ("Stop", "Pause"):
            raise RuntimeError(
                f"{self.name}: not moved, since {self.prefix}.SPMG = {permission}, expected Go; "
                "set it to Go"
            )
        if self.set_use_switch.get():
            raise RuntimeError(
                f"{self.name}: not moved, since {self.prefix}.SET = Set, expected Use: a target "
                "would redefine the position; set it to Use"
            )

    def _complaint(self) -> str:
        """Say what the record complains of after a move, and what to do; nothing if it does not."""
        bits = int(self.status_bits.get(use_monitor=False))
        ahead = _PLUS_LIMIT if bits & _DIRECTION else _MINUS_LIMIT
        for mask, what, advice in (
            (_COMMUNICATION, "lost its controller", "check the controller"),
            (_PROBLEM, "has a problem", "check that its amplifier is on and enabled"),
            (_SLIP_STALL, "slipped or stalled", "free it, and find its position again"),
            (ahead, "is at a limit switch", "move it away, and check the limits"),
        ):
            if bits & mask:
                return f"{self.prefix} {what} (MSTA = {bits:#x}); {advice}"
        if self.status_bits.metadata.get("severity") == _INVALID:
            return f"{self.prefix}.SEVR = INVALID, expected NO_ALARM; check the motor"
        return ""
