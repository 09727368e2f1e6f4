"""The fields of a motor record, and those relations between them that need no motion.

Source: documentation of the EPICS motor module, motorRecord (fields for calibration, limits, speed
and status). Steps are `MRES` long; user and dial coordinates are related by user = DIR dial + OFF.
"""

from dataclasses import dataclass
from typing import Any

from caproto import (
    AlarmSeverity,
    AlarmStatus,
    ChannelAlarm,
    ChannelData,
    ChannelNumeric,
    SubscriptionType,
)

from mistral_txm.simulated_beamline.channels import (
    Database,
    double,
    integer,
    menu,
    post,
    short,
    string,
)

SEVERITIES = ("NO_ALARM", "MINOR", "MAJOR", "INVALID")
STATUSES = tuple(status.name for status in list(AlarmStatus)[:16])
"""As many as a menu can have."""


@dataclass(frozen=True)
class MotorSettings:
    """What differs from motor to motor; units are those of `units`, speeds per second.

    `backlash` is the play of the mechanism, which the record does not know; `settle_s` is the time
    that it waits before it says that a motion has ended.
    """

    units: str
    low_limit: float
    high_limit: float
    velocity: float
    acceleration_s: float
    precision: int
    initial: float = 0.0
    description: str = ""
    backlash: float = 0.0
    settle_s: float = 0.0


def make_fields(settings: MotorSettings, status: int) -> dict[str, ChannelData]:
    """Make the process variables of one record, by the names of its fields."""
    limits = (settings.low_limit, settings.high_limit)
    step = 10.0**-settings.precision
    steps = round(settings.initial / step)

    def position(*, read_only: bool = False) -> ChannelData:
        channel = double(
            settings.initial,
            units=settings.units,
            precision=settings.precision,
            limits=limits,
            read_only=read_only,
        )
        channel.reported_record_type = "motor"
        return channel

    def quantity(
        value: float, units: str = settings.units, *, read_only: bool = False
    ) -> ChannelData:
        return double(value, units=units, precision=settings.precision, read_only=read_only)

    def speed(value: float) -> ChannelData:
        return quantity(value, f"{settings.units}/s")

    fields = {
        # drive and readback
        "VAL": position(),
        "DVAL": position(),
        "RVAL": integer(steps),
        "RLV": quantity(0.0),
        "RBV": position(read_only=True),
        "DRBV": position(read_only=True),
        "RRBV": integer(steps, read_only=True),
        "DIFF": quantity(0.0, read_only=True),
        "RDIF": integer(read_only=True),
        "SYNC": short(0),
        # calibration and resolution
        "OFF": quantity(0.0),
        "DIR": menu(("Pos", "Neg")),
        "FOFF": menu(("Variable", "Frozen")),
        "SET": menu(("Use", "Set")),
        "MRES": quantity(step, read_only=True),
        "ERES": quantity(step, read_only=True),
        "UEIP": menu(("No", "Yes"), 1, read_only=True),
        # limits
        "HLM": quantity(settings.high_limit),
        "LLM": quantity(settings.low_limit),
        "DHLM": quantity(settings.high_limit),
        "DLLM": quantity(settings.low_limit),
        "LVIO": short(0, read_only=True),
        "HLS": short(0, read_only=True),
        "LLS": short(0, read_only=True),
        "HLSV": menu(SEVERITIES),
        # motion
        "VELO": speed(settings.velocity),
        "VBAS": speed(0.0),
        "VMAX": speed(settings.velocity),
        "ACCL": quantity(settings.acceleration_s, "s"),
        "BDST": quantity(0.0),
        "BVEL": speed(settings.velocity),
        "BACC": quantity(settings.acceleration_s, "s"),
        "HVEL": speed(settings.velocity),
        "JVEL": speed(settings.velocity),
        "JAR": quantity(
            settings.velocity / (settings.acceleration_s or 0.1), f"{settings.units}/s^2"
        ),
        "DLY": quantity(settings.settle_s, "s"),
        "RDBD": quantity(step),
        "RTRY": short(10),
        "RCNT": short(0, read_only=True),
        "MISS": short(0, read_only=True),
        # buttons
        "SPMG": menu(("Stop", "Pause", "Move", "Go"), 3),
        "STOP": short(0),
        "HOMF": short(0),
        "HOMR": short(0),
        "JOGF": short(0),
        "JOGR": short(0),
        "TWF": short(0),
        "TWR": short(0),
        "TWV": quantity(1.0),
        "CNEN": menu(("Disable", "Enable"), 1),
        "STUP": menu(("OFF", "ON", "BUSY")),
        # status
        "DMOV": short(1, read_only=True),
        "MOVN": short(0, read_only=True),
        "MSTA": integer(status, read_only=True),
        "TDIR": short(1, read_only=True),
        "ATHM": short(0, read_only=True),
        "STAT": menu(STATUSES, read_only=True),
        "SEVR": menu(SEVERITIES, read_only=True),
        # about the record
        "EGU": string(settings.units),
        "PREC": short(settings.precision, read_only=True),
        "DESC": string(settings.description),
        "RTYP": string("motor", read_only=True),
    }
    alarm = ChannelAlarm()
    for channel in fields.values():
        channel.alarm = alarm
        if isinstance(channel, ChannelNumeric):
            channel.verify_value = _accept
    return fields


async def _accept(value: Any) -> Any:
    """Take a number as it is: by itself, caproto would derive the record's alarm from it."""
    return value


class MotorFields:
    """The process variables of one record at `prefix`, put into `database`.

    All share one alarm, as the fields of a record do.
    """

    def __init__(
        self, database: Database, prefix: str, settings: MotorSettings, status: int
    ) -> None:
        self.channels = make_fields(settings, status)
        database[prefix] = self.channels["VAL"]
        database.update({f"{prefix}.{name}": field for name, field in self.channels.items()})
        hooks = {
            "HLM": self._user_limit_put,
            "LLM": self._user_limit_put,
            "DHLM": self._dial_limit_put,
            "DLLM": self._dial_limit_put,
            "OFF": self._offset_put,
            "DIR": self._direction_put,
            "RDBD": self._deadband_put,
            "VMAX": self._highest_speed_put,
            **dict.fromkeys(("VBAS", "VELO", "BVEL", "HVEL", "JVEL"), self._speed_put),
            **dict.fromkeys(("ACCL", "BACC"), self._acceleration_put),
        }
        for name, hook in hooks.items():
            self.channels[name].on_put = hook

    def __getitem__(self, name: str) -> Any:
        return self.channels[name].value

    def number(self, name: str) -> float:
        """Return the value of a field of numbers."""
        return float(self.channels[name].value)

    async def post(self, **values: Any) -> None:
        """Write fields from the record's side, in order."""
        for name, value in values.items():
            await post(self.channels[name], value)

    async def post_alarm(self, status: AlarmStatus, severity: AlarmSeverity) -> None:
        """Raise or clear the alarm of the record, and tell whoever watches any of its fields."""
        alarm = self.channels["VAL"].alarm
        if (status, severity) == (alarm.status, alarm.severity):
            return
        await alarm.write(status=status, severity=severity, publish=False)
        await self.post(STAT=int(status), SEVR=int(severity))
        await alarm.publish(SubscriptionType.DBE_ALARM)

    @property
    def direction(self) -> int:
        """+1 where user and dial coordinates grow together, otherwise -1."""
        return 1 if self["DIR"] == "Pos" else -1

    def user(self, dial: float) -> float:
        """Convert a dial position to user coordinates."""
        return self.clean(self.direction * dial + self.number("OFF"))

    def dial(self, user: float) -> float:
        """Convert a user position to dial coordinates."""
        return self.clean((user - self.number("OFF")) * self.direction)

    def clean(self, position: float) -> float:
        """Take the noise of binary fractions off a position, far below one step."""
        return round(position, int(self["PREC"]) + 6)

    def steps(self, dial: float) -> int:
        """Return the nearest whole number of steps."""
        return round(dial / self.number("MRES"))

    def at_steps(self, steps: int) -> float:
        """Return the dial position of a number of steps."""
        return round(steps * self.number("MRES"), int(self["PREC"]))

    async def post_target(self, dial: float, user: float | None = None) -> None:
        """Have the drive fields agree on one target."""
        await self.post(
            DVAL=dial,
            VAL=self.user(dial) if user is None else user,
            RVAL=self.steps(dial),
        )
        await self._post_difference()

    async def post_readback(self, dial: float) -> None:
        """Have the readbacks agree on one position, a whole number of steps."""
        steps = self.steps(dial)
        dial = self.at_steps(steps)
        await self.post(RRBV=steps, DRBV=dial, RBV=self.user(dial))
        await self._post_difference()

    async def _post_difference(self) -> None:
        difference = self.clean(self.number("DVAL") - self.number("DRBV"))
        await self.post(DIFF=difference, RDIF=self.steps(difference))

    async def redefine(self, offset: float) -> None:
        """Change the offset: user coordinates and limits follow, dial coordinates stay."""
        await self.post(OFF=self.clean(offset))
        await self._follow_dial()

    @property
    def has_limits(self) -> bool:
        """Whether there are limits at all; both at zero means none."""
        return (self.number("DHLM"), self.number("DLLM")) != (0.0, 0.0)

    def is_within_limits(self, dial: float) -> bool:
        """Tell whether a dial position is within the limits."""
        return not self.has_limits or self.number("DLLM") <= dial <= self.number("DHLM")

    async def _follow_dial(self) -> None:
        """Have all that is in user coordinates agree with the dial."""
        low, high = self.number("DLLM"), self.number("DHLM")
        user_low, user_high = (self.user(end) for end in (low, high)[:: self.direction])
        await self._publish_limits(("VAL", "RBV"), user_low, user_high)
        await self._publish_limits(("DVAL", "DRBV"), low, high)
        await self.post(
            LLM=user_low,
            HLM=user_high,
            VAL=self.user(self.number("DVAL")),
            RBV=self.user(self.number("DRBV")),
        )

    async def _publish_limits(self, names: tuple[str, ...], low: float, high: float) -> None:
        for name in names:
            await self.channels[name].write_metadata(
                lower_ctrl_limit=low,
                upper_ctrl_limit=high,
                lower_disp_limit=low,
                upper_disp_limit=high,
            )

    async def _user_limit_put(self, _value: float) -> None:
        low, high = self.dial(self.number("LLM")), self.dial(self.number("HLM"))
        await self._take_limits(*(low, high)[:: self.direction])

    async def _dial_limit_put(self, _value: float) -> None:
        await self._take_limits(self.number("DLLM"), self.number("DHLM"))

    async def _take_limits(self, low: float, high: float) -> None:
        await self.post(DLLM=low, DHLM=high)
        await self._follow_dial()
        await self.post(LVIO=int(not self.is_within_limits(self.number("DVAL"))))

    async def _offset_put(self, _value: float) -> None:
        await self._follow_dial()

    async def _direction_put(self, _value: str) -> None:
        if self["FOFF"] == "Variable":  # the position keeps its value, and counts the other way
            offset = self.number("VAL") - self.direction * self.number("DVAL")
            await self.post(OFF=self.clean(offset))
        await self._follow_dial()

    async def _deadband_put(self, value: float) -> None:
        await self.post(RDBD=max(value, self.number("MRES")))

    async def _speed_put(self, _value: float) -> None:
        """Keep the speeds between VBAS and VMAX, of which 0 is none."""
        base, highest = max(self.number("VBAS"), 0.0), max(self.number("VMAX"), 0.0)
        await self.post(VBAS=base, VMAX=max(highest, base) if highest else 0.0)
        for name in ("VELO", "BVEL", "HVEL", "JVEL"):
            speed = max(self.number(name), base)
            await self.post(**{name: min(speed, self.number("VMAX") or speed)})

    async def _highest_speed_put(self, value: float) -> None:
        await self.post(VBAS=min(self.number("VBAS"), value) if value > 0 else self["VBAS"])
        await self._speed_put(value)

    async def _acceleration_put(self, _value: float) -> None:
        await self.post(**{n: 0.1 for n in ("ACCL", "BACC") if not self.number(n) > 0})
