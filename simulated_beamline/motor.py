"""A motor record: fields and behaviour of the EPICS record of that name.

Source: documentation of the EPICS motor module, motorRecord. The record may be stopped or sent
elsewhere at any time; DMOV makes a 1-0-1 transition for every request, also where nothing has to
move. What it lacks are links to other records, the commands before and after a move, the settings
of a servo, and choices that make no difference here: FRAC, RMOD, NTM, SPDB, speeds in turns.
The status of the hardware is read when the motor moves, when STUP asks for it, and for who reads
MSTA or CNEN.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal

from caproto import AlarmSeverity, AlarmStatus

from mistral_txm.simulated_beamline.channels import Database, PutHook
from mistral_txm.simulated_beamline.clock import Clock
from mistral_txm.simulated_beamline.faults import Faults
from mistral_txm.simulated_beamline.motor_controller import Controller, Speed, Status
from mistral_txm.simulated_beamline.motor_fields import SEVERITIES, MotorFields, MotorSettings

__all__ = ["MotorRecord", "MotorSettings"]

Halt = Literal["stop", "pause", "release", "replace"]
"""Why a motion ends early: STOP, SPMG = Pause, a jog button let go, or another motion instead."""


class _Motion:
    """One motion, from the request to DMOV = 1."""

    def __init__(self, *, is_jog: bool) -> None:
        self.is_jog = is_jog
        self.halt: Halt | None = None
        self.halted = asyncio.Event()

    def end(self, halt: Halt) -> None:
        """End it at once; a motion that replaces it counts more than another reason."""
        if self.halt is None or halt == "replace":
            self.halt = halt
        self.halted.set()


_Steps = Callable[[_Motion], Awaitable[None]]


class MotorRecord:
    """One motor record at `prefix`, its channels put into `database`.

    `time_scale` multiplies the duration of a motion into wall time; at 0 a motion ends at once. The
    `clock` counts the unscaled duration, that of a trapezoid of speed and DLY. `name` is that of
    its `faults`. A put completes when the record is done, DLY included.
    """

    def __init__(
        self,
        database: Database,
        prefix: str,
        settings: MotorSettings,
        time_scale: float,
        clock: Clock,
        faults: Faults,
        name: str,
    ) -> None:
        self._controller = Controller(settings, time_scale, clock, faults, name)
        self._fields = MotorFields(database, prefix, settings, int(self._controller.status))
        self._target = settings.initial
        self._motion: _Motion | None = None
        self._waiting: _Steps | None = None
        self._task: asyncio.Task[None] | None = None
        self._done = asyncio.Event()
        self._done.set()
        hooks: dict[str, PutHook] = {
            "VAL": self._user_put,
            "DVAL": self._dial_put,
            "RVAL": lambda steps: self._dial_put(self._fields.at_steps(steps)),
            "RLV": self._relative_put,
            "TWF": lambda value: self._tweak_put(value, "TWF", +1),
            "TWR": lambda value: self._tweak_put(value, "TWR", -1),
            "HOMF": self._home_put,
            "HOMR": self._home_put,
            "JOGF": lambda value: self._jog_put(value, +1),
            "JOGR": lambda value: self._jog_put(value, -1),
            "STOP": self._stop_put,
            "SPMG": self._spmg_put,
            "SYNC": self._sync_put,
            "STUP": self._update_put,
            "CNEN": self._enable_put,
        }
        for field, hook in hooks.items():
            self._fields.channels[field].on_put = hook
        for field in ("MSTA", "CNEN"):
            self._fields.channels[field].on_read = self._look

    @property
    def dial_position(self) -> float:
        """What the record says, in the motor's units, whatever offset is set."""
        return self._fields.number("DRBV")

    @property
    def mechanism_position(self) -> float:
        """Where the mechanism really stands, whatever the record says, in the motor's units."""
        return self._controller.load_position

    # What clients write

    async def _user_put(self, user: float) -> None:
        fields = self._fields
        if not math.isfinite(user):
            await self._refuse()
        elif fields["SET"] == "Use":
            await self._drive(fields.dial(user), user)
        elif fields["FOFF"] == "Frozen":
            await self._call_position(fields.dial(user))
        else:
            await fields.post(DMOV=0)
            await fields.redefine(user - fields.direction * fields.number("DVAL"))
            await fields.post(DMOV=1)

    async def _dial_put(self, dial: float) -> None:
        if not math.isfinite(dial):
            await self._refuse()
        elif self._fields["SET"] == "Use":
            await self._drive(dial)
        else:
            await self._call_position(dial)

    async def _relative_put(self, distance: float) -> None:
        await self._fields.post(RLV=0.0)
        await self._user_put(self._fields.number("VAL") + distance)

    async def _tweak_put(self, value: int, button: str, sign: int) -> None:
        await self._fields.post(**{button: 0})
        if value:
            await self._relative_put(sign * self._fields.number("TWV"))

    async def _call_position(self, dial: float) -> None:
        """Call the place where the motor stands `dial`, without a motion."""
        fields, user = self._fields, self._fields.number("VAL")
        await fields.post(DMOV=0)
        self._controller.call_position(dial)
        self._target = dial
        await fields.post_target(dial)
        await fields.post_readback(dial)
        if fields["FOFF"] == "Variable":
            await fields.redefine(user - fields.direction * dial)
        await fields.post(DMOV=1)

    async def _home_put(self, value: int) -> None:
        if value:
            await self._request(self._go_home)

    async def _jog_put(self, value: int, sign: int) -> None:
        if not value:
            if self._motion is not None and self._motion.is_jog:
                self._motion.end("release")
        elif self._fields["SPMG"] in ("Stop", "Pause"):
            await self._fields.post(JOGF=0, JOGR=0)
        else:
            await self._request(partial(self._jog, sign), is_jog=True)

    async def _stop_put(self, value: int) -> None:
        await self._fields.post(STOP=0)
        if value:
            await self._stop()
            await self._done.wait()

    async def _spmg_put(self, value: str) -> None:
        if value == "Stop":
            await self._stop()
        elif value == "Pause" and self._motion is not None:
            self._motion.end("pause")
        elif value in ("Move", "Go") and self._waiting is not None:
            await self._request(self._waiting)

    async def _sync_put(self, value: int) -> None:
        await self._fields.post(SYNC=0)
        if value and self._motion is None:
            await self._synchronize()

    async def _update_put(self, value: str) -> None:
        if value == "ON":
            await self._fields.post(STUP="BUSY")
            await self._report()
        await self._fields.post(STUP="OFF")

    async def _look(self) -> None:
        if self._motion is None:
            await self._report()

    async def _enable_put(self, value: str) -> None:
        self._controller.is_enabled = value == "Enable"
        await self._report()

    # From a request to a motion, and to its end

    async def _drive(self, dial: float, user: float | None = None) -> None:
        """Take a target and move there, or refuse it where it lies outside the limits."""
        await self._fields.post(DMOV=0)
        if not self._is_allowed(dial):
            await self._refuse()
            return
        await self._fields.post(LVIO=0)
        await self._fields.post_target(dial, user)
        await self._request(partial(self._go, dial, user))

    def _is_allowed(self, dial: float) -> bool:
        """Tell whether a target, and where its backlash correction would begin, are in range."""
        fields = self._fields
        low, high = fields.number("DLLM"), fields.number("DHLM")
        backlash = fields.number("BDST")
        if high < dial < self._target or self._target < dial < low:
            return low <= high  # back towards the range
        preferred = (dial > self._target) == (backlash > 0)
        return fields.is_within_limits(dial if preferred else dial - backlash)

    async def _refuse(self) -> None:
        """Raise LVIO, and have the drive fields tell the last target."""
        await self._fields.post(DMOV=0, LVIO=1)
        await self._fields.post_target(self._target)
        if self._motion is None and self._waiting is None:
            await self._fields.post(DMOV=1)

    async def _request(self, steps: _Steps, *, is_jog: bool = False) -> None:
        """Begin a motion, or keep it until SPMG allows one; return when the record is done."""
        self._done.clear()
        await self._fields.post(DMOV=0)
        if self._fields["SPMG"] in ("Stop", "Pause"):
            self._waiting = steps
            await self._done.wait()
            return
        self._waiting = None
        if self._motion is not None:
            self._motion.end("replace")
        self._motion = _Motion(is_jog=is_jog)
        # A task of its own: the motor moves on where the client that asked for it is gone.
        self._task = asyncio.create_task(self._run(self._motion, steps, self._task))
        await asyncio.shield(self._task)
        await self._done.wait()

    async def _run(self, motion: _Motion, steps: _Steps, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait({before})
            self._done.clear()  # the one before may have been at its very end
            await self._fields.post(DMOV=0)
        await steps(motion)
        if motion.halt == "replace":
            return
        self._motion = None
        if motion.halt == "pause":
            self._waiting = steps
        else:
            if motion.halt == "stop":
                await self._synchronize()
            await self._finish()

    async def _finish(self) -> None:
        await self._fields.post(HOMF=0, HOMR=0, JOGF=0, JOGR=0, DMOV=1)
        self._done.set()

    async def _stop(self) -> None:
        if self._motion is not None:
            self._motion.end("stop")
        elif self._waiting is not None:
            self._waiting = None
            await self._synchronize()
            await self._finish()

    async def _synchronize(self) -> None:
        """Have the drive fields agree with the readback."""
        self._target = self.dial_position
        await self._fields.post_target(self._target)

    # Motions

    async def _go(self, dial: float, user: float | None, motion: _Motion) -> None:
        """Move to a target, with backlash correction and retries."""
        fields = self._fields
        self._target = dial
        await fields.post_target(dial, user)
        await fields.post(RCNT=0)
        if fields["RDIF"] == 0:
            return
        await self._controller.begin(dial)
        for retry in range(1 + max(fields["RTRY"], 0)):
            await fields.post(RCNT=retry)
            await self._take_legs(motion, dial)
            if motion.halt is None:
                await self._controller.rest(fields.number("DLY"), motion.halted)
            if motion.halt is not None:
                return
            if self._controller.status.is_at_switch:
                await self._synchronize()
                return
            if abs(fields.number("DIFF")) < fields.number("RDBD"):
                await fields.post(MISS=0)
                if fields["SPMG"] == "Move":
                    await fields.post(SPMG="Pause")
                return
        if fields["RTRY"] > 0:
            await fields.post(RCNT=fields["RTRY"] + 1, MISS=1)

    async def _take_legs(self, motion: _Motion, dial: float) -> None:
        """Go to `dial`; BDST is taken up from one side, on a leg of its own unless it is short."""
        fields = self._fields
        distance, backlash = dial - self.dial_position, fields.number("BDST")
        slew = self._speed("VELO", fields.number("ACCL"))
        creep = self._speed("BVEL", fields.number("BACC"))
        is_preferred = distance * backlash > 0
        if abs(backlash) < fields.number("MRES") or (is_preferred and slew == creep):
            legs = [(dial, slew)]
        elif is_preferred and abs(distance) <= abs(backlash) + fields.number("MRES"):
            legs = [(dial, creep)]
        else:
            legs = [(dial - backlash, slew), (dial, creep)]
        for target, speed in legs:
            await self._move(motion, target, speed)
            if motion.halt is not None or self._controller.status.is_at_switch:
                return

    async def _go_home(self, motion: _Motion) -> None:
        """Seek the home switch, whatever side it is on, without regard to the limits."""
        fields = self._fields
        await fields.post(LVIO=0, RCNT=0)
        speed = self._speed("HVEL", fields.number("ACCL"))
        await self._controller.find_home(speed, motion.halted, self._report)
        if motion.halt is None:
            await self._controller.rest(fields.number("DLY"), motion.halted)
        if motion.halt == "pause":
            motion.halt = "stop"
        await self._synchronize()

    async def _jog(self, sign: int, motion: _Motion) -> None:
        """Move until the button is let go, or one second before a limit, or to the switch."""
        fields = self._fields
        forward = sign * fields.direction > 0
        end = self._controller.ends[forward]
        if fields.has_limits:
            margin = fields.number("JVEL")
            end = fields.number("DHLM") - margin if forward else fields.number("DLLM") + margin
        has_room = end > self.dial_position if forward else end < self.dial_position
        await fields.post(LVIO=int(not has_room), RCNT=0)
        if not has_room:
            return
        rate = fields.number("JAR")
        gain = fields.number("JVEL") - fields.number("VBAS")
        await self._controller.begin(end)
        await self._move(motion, end, self._speed("JVEL", gain / rate if rate > 0 else 0.0))
        if motion.halt == "replace":
            return
        if motion.halt == "pause":
            motion.halt = "stop"
        await fields.post(LVIO=int(fields.has_limits and motion.halt is None))
        await self._synchronize()
        if motion.halt == "release" and abs(fields.number("BDST")) >= fields.number("MRES"):
            motion.halt = None
            motion.halted.clear()
            await self._take_legs(motion, self._target)

    def _speed(self, field: str, acceleration_s: float) -> Speed:
        return Speed(self._fields.number("VBAS"), self._fields.number(field), acceleration_s)

    async def _move(self, motion: _Motion, target: float, speed: Speed) -> None:
        target = self._fields.at_steps(self._fields.steps(target))
        await self._controller.move(target, speed, motion.halted, self._report)

    async def _report(self) -> None:
        """Publish what the controller says."""
        fields, status = self._fields, self._controller.status
        plus, minus = bool(status & Status.PLUS_LIMIT), bool(status & Status.MINUS_LIMIT)
        low, high = (minus, plus)[:: fields.direction]
        await fields.post_alarm(*self._alarm(status, low=low, high=high))
        await fields.post_readback(self._controller.position)
        await fields.post(
            MSTA=int(status),
            TDIR=int(bool(status & Status.DIRECTION)),
            HLS=int(high),
            LLS=int(low),
            ATHM=int(bool(status & Status.HOME_SWITCH)),
            CNEN=int(bool(status & Status.POSITION)),
            MOVN=int(bool(status & Status.MOVING)),
        )

    def _alarm(self, status: Status, *, low: bool, high: bool) -> tuple[AlarmStatus, AlarmSeverity]:
        fields = self._fields
        dial = fields.number("DVAL")
        severity = AlarmSeverity(SEVERITIES.index(fields["HLSV"]))
        if severity and (high or (fields.has_limits and dial > fields.number("DHLM"))):
            return AlarmStatus.HIGH, severity
        if severity and (low or (fields.has_limits and dial < fields.number("DLLM"))):
            return AlarmStatus.LOW, severity
        if status & (Status.SLIP_STALL | Status.PROBLEM):
            return AlarmStatus.STATE, AlarmSeverity.MAJOR_ALARM
        return AlarmStatus.NO_ALARM, AlarmSeverity.NO_ALARM
