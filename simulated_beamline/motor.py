"""A motor record: fields and behaviour of the EPICS record of that name, on a perfect mechanism.

Source: EPICS motor module, motorRecord documentation (fields DMOV, MOVN, MSTA, LVIO, SET, STOP,
TWF). DMOV makes a 1-0-1 transition for every move, also where nothing has to move, as the record
promises.
"""

import asyncio
import math
from dataclasses import dataclass

from caproto import ChannelData

from mistral_txm.simulated_beamline.channels import (
    Database,
    double,
    integer,
    menu,
    post,
    short,
    string,
)

MSTA_DIRECTION = 0x0001
MSTA_DONE = 0x0002
MSTA_PLUS_LIMIT = 0x0004
MSTA_POSITION = 0x0020
MSTA_MOVING = 0x0400
MSTA_MINUS_LIMIT = 0x2000

TICK_S = 0.05
"""Wall time between two readbacks of a motion, where a motion takes wall time at all."""


@dataclass(frozen=True)
class MotorSettings:
    """What differs from motor to motor; units are those of `units`, speeds per second."""

    units: str
    low_limit: float
    high_limit: float
    velocity: float
    acceleration_s: float
    precision: int
    initial: float = 0.0
    description: str = ""


class MotorRecord:
    """One motor record at `prefix`, its channels put into `database`.

    `time_scale` multiplies the duration of a motion, `|distance| / VELO + 2 ACCL`, into wall time;
    at 0 a motion ends at once. `dial_position` is where the mechanism stands, whatever offset is
    set.
    """

    def __init__(
        self, database: Database, prefix: str, settings: MotorSettings, time_scale: float
    ) -> None:
        self._time_scale = time_scale
        self._move_number = 0
        self._stopped_move = 0
        limits = (settings.low_limit, settings.high_limit)

        def position(value: float = settings.initial, **kwargs: bool) -> ChannelData:
            channel = double(
                value,
                units=settings.units,
                precision=settings.precision,
                limits=limits,
                **kwargs,
            )
            channel.reported_record_type = "motor"
            return channel

        def quantity(value: float, units: str) -> ChannelData:
            return double(value, units=units, precision=settings.precision)

        speed = f"{settings.units}/s"
        self._fields: dict[str, ChannelData] = {
            "VAL": position(),
            "RBV": position(read_only=True),
            "DVAL": position(read_only=True),
            "DRBV": position(read_only=True),
            "RVAL": integer(read_only=True),
            "RRBV": integer(read_only=True),
            "DIFF": position(0.0, read_only=True),
            "HLM": position(settings.high_limit),
            "LLM": position(settings.low_limit),
            "DHLM": position(settings.high_limit, read_only=True),
            "DLLM": position(settings.low_limit, read_only=True),
            "OFF": position(0.0),
            "DIR": menu(("Pos", "Neg"), read_only=True),
            "FOFF": menu(("Variable", "Frozen")),
            "SET": menu(("Use", "Set")),
            "VELO": quantity(settings.velocity, speed),
            "VBAS": quantity(0.0, speed),
            "VMAX": quantity(settings.velocity, speed),
            "ACCL": quantity(settings.acceleration_s, "s"),
            "BDST": quantity(0.0, settings.units),
            "RDBD": quantity(10.0**-settings.precision, settings.units),
            "MRES": quantity(10.0**-settings.precision, settings.units),
            "EGU": string(settings.units),
            "PREC": short(settings.precision, read_only=True),
            "DESC": string(settings.description),
            "RTYP": string("motor", read_only=True),
            "MOVN": short(0, read_only=True),
            "DMOV": short(1, read_only=True),
            "MSTA": integer(MSTA_DONE | MSTA_POSITION, read_only=True),
            "MISS": short(0, read_only=True),
            "LVIO": short(0, read_only=True),
            "HLS": short(0, read_only=True),
            "LLS": short(0, read_only=True),
            "TDIR": short(1, read_only=True),
            "STOP": short(0),
            "SPMG": menu(("Stop", "Pause", "Move", "Go"), 3),
            "HOMF": short(0),
            "HOMR": short(0),
            "TWV": quantity(1.0, settings.units),
            "TWF": short(0),
            "TWR": short(0),
            "CNEN": menu(("Disable", "Enable"), 1),
            "STAT": menu(("NO_ALARM", "LINK"), read_only=True),
            "SEVR": menu(("NO_ALARM", "MINOR", "MAJOR", "INVALID"), read_only=True),
        }
        database[prefix] = self._fields["VAL"]
        database.update({f"{prefix}.{name}": field for name, field in self._fields.items()})
        self._fields["VAL"].on_put = self._value_put
        self._fields["STOP"].on_put = self._stop_put
        self._fields["SPMG"].on_put = self._spmg_put
        self._fields["HLM"].on_put = self._limits_put
        self._fields["LLM"].on_put = self._limits_put
        self._fields["OFF"].on_put = self._offset_put
        self._fields["HOMF"].on_put = self._home_put
        self._fields["HOMR"].on_put = self._home_put
        self._fields["TWF"].on_put = self._tweak_forward_put
        self._fields["TWR"].on_put = self._tweak_reverse_put

    @property
    def dial_position(self) -> float:
        """Where the mechanism stands now, in the motor's units."""
        return float(self._fields["DRBV"].value)

    def _number(self, field: str) -> float:
        return float(self._fields[field].value)

    async def _post_position(self, user: float) -> None:
        dial = user - self._number("OFF")
        steps = round(dial / self._number("MRES"))
        await post(self._fields["DRBV"], dial)
        await post(self._fields["RRBV"], steps)
        await post(self._fields["DIFF"], self._number("VAL") - user)
        await post(self._fields["RBV"], user)

    async def _value_put(self, target: float) -> None:
        if self._fields["SET"].value == "Set":
            await post(self._fields["OFF"], target - self.dial_position)
            await self._offset_put(self._number("OFF"))
            return
        await self.move(float(target))

    async def move(self, target: float) -> None:
        """Move to `target`, in user coordinates; return at the end, or when another move starts.

        A target outside the limits or not finite moves nothing: LVIO rises and VAL goes back.
        """
        self._move_number += 1
        number = self._move_number
        start = self._number("RBV")
        low, high = self._number("LLM"), self._number("HLM")
        allowed = math.isfinite(target) and low <= target <= high
        await post(self._fields["LVIO"], 0 if allowed else 1)
        if not allowed or self._fields["SPMG"].value in ("Stop", "Pause"):
            await post(self._fields["VAL"], start)
            return
        await post(self._fields["VAL"], target)
        await post(self._fields["DVAL"], target - self._number("OFF"))
        forward = target >= start
        await post(self._fields["TDIR"], int(forward))
        direction = MSTA_DIRECTION if forward else 0
        await post(self._fields["MSTA"], direction | MSTA_POSITION | MSTA_MOVING)
        await post(self._fields["MOVN"], 1)
        await post(self._fields["DMOV"], 0)
        duration_s = 0.0
        if target != start:
            duration_s = abs(target - start) / self._number("VELO") + 2 * self._number("ACCL")
        end = await self._travel(number, start, target, duration_s * self._time_scale)
        if end is None:
            return
        await self._post_position(end)
        if end != target:
            await post(self._fields["VAL"], end)
            await post(self._fields["DVAL"], end - self._number("OFF"))
            await post(self._fields["DIFF"], 0.0)
        await post(self._fields["MSTA"], direction | MSTA_POSITION | MSTA_DONE)
        await post(self._fields["MOVN"], 0)
        await post(self._fields["DMOV"], 1)

    async def _travel(
        self, number: int, start: float, target: float, duration_s: float
    ) -> float | None:
        """Wait while the motor travels; return where it ends, None where another move took over."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while (elapsed_s := loop.time() - began_s) < duration_s:
            here = start + (target - start) * elapsed_s / duration_s
            await self._post_position(here)
            await asyncio.sleep(min(TICK_S, duration_s - elapsed_s))
            if self._move_number != number:
                return None
            if self._stopped_move == number:
                return self._number("RBV")
        return target

    async def _stop_put(self, value: int) -> None:
        if value:
            self._stopped_move = self._move_number
            await post(self._fields["STOP"], 0)

    async def _spmg_put(self, value: str) -> None:
        if value in ("Stop", "Pause"):
            self._stopped_move = self._move_number

    async def _limits_put(self, _value: float) -> None:
        low, high = self._number("LLM"), self._number("HLM")
        for name in ("VAL", "RBV", "DVAL", "DRBV"):
            await self._fields[name].write_metadata(
                lower_ctrl_limit=low,
                upper_ctrl_limit=high,
                lower_disp_limit=low,
                upper_disp_limit=high,
            )

    async def _offset_put(self, offset: float) -> None:
        user = self.dial_position + offset
        await post(self._fields["VAL"], user)
        await self._post_position(user)

    async def _home_put(self, value: int) -> None:
        if value:
            for name in ("HOMF", "HOMR"):
                await post(self._fields[name], 0)
            await self.move(self._number("OFF"))

    async def _tweak_forward_put(self, value: int) -> None:
        if value:
            await post(self._fields["TWF"], 0)
            await self.move(self._number("VAL") + self._number("TWV"))

    async def _tweak_reverse_put(self, value: int) -> None:
        if value:
            await post(self._fields["TWR"], 0)
            await self.move(self._number("VAL") - self._number("TWV"))
