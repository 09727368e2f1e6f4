"""Process variables: caproto channel data with hooks that run when a client writes or reads.

A hook is a coroutine. That of a put runs after the new value has been stored and published, and the
client's put-callback completes when it returns: that is how a motor or an exposure reports its end.
That of a read brings a value up to date that changes by itself.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from caproto import (
    AccessRights,
    ChannelChar,
    ChannelData,
    ChannelDouble,
    ChannelEnum,
    ChannelInteger,
    ChannelShort,
    ChannelString,
)

PutHook = Callable[[Any], Awaitable[None]]
ReadHook = Callable[[], Awaitable[None]]
Database = dict[str, ChannelData]

LONG_STRING_LENGTH = 1024
"""Characters in a CHAR waveform, more than areaDetector's 256 so that deep folders fit."""

UPDATES_KEPT = 10
"""Updates that wait for a slow client at most. caproto keeps as many of each subscription after they were sent, too:
its own 1000 would fill for days."""


class _Hooked:
    """Adds hooks for a client's puts and reads, and a read-only flag, to a caproto channel."""

    on_put: PutHook | None = None
    on_read: ReadHook | None = None
    _is_refreshing: bool = False
    read_only: bool = False

    def __init__(self, **options: Any) -> None:
        super().__init__(max_subscription_backlog=UPDATES_KEPT, **options)  # type: ignore[call-arg]  # mixed in

    def check_access(self, hostname: str, username: str) -> AccessRights:
        """Return the rights of a client: read, and write unless the channel is a readback."""
        if self.read_only:
            return AccessRights.READ
        return AccessRights.READ | AccessRights.WRITE

    async def read(self, data_type: Any) -> Any:
        """Run the hook, unless it is what reads, and return the value."""
        if self.on_read is not None and not self._is_refreshing:
            self._is_refreshing = True
            try:
                await self.on_read()
            finally:
                self._is_refreshing = False
        return await super().read(data_type)  # type: ignore[misc]  # mixed in

    async def write_from_dbr(self, *args: Any, **kwargs: Any) -> None:
        """Store and publish a client's value, then run the hook to its end."""
        await super().write_from_dbr(*args, **kwargs)  # type: ignore[misc]  # mixed in
        if self.on_put is not None:
            await self.on_put(self.value)  # type: ignore[attr-defined]  # from caproto's class


class _Double(_Hooked, ChannelDouble):  # type: ignore[misc]  # caproto is untyped
    async def verify_value(self, data: Any) -> Any:
        """Accept every value: limits are published here, what they mean is up to the hook."""
        return data


class _Integer(_Hooked, ChannelInteger):  # type: ignore[misc]  # caproto is untyped
    pass


class _Short(_Hooked, ChannelShort):  # type: ignore[misc]  # caproto is untyped
    pass


class _Menu(_Hooked, ChannelEnum):  # type: ignore[misc]  # caproto is untyped
    pass


class _String(_Hooked, ChannelString):  # type: ignore[misc]  # caproto is untyped
    pass


class _LongString(_Hooked, ChannelChar):  # type: ignore[misc]  # caproto is untyped
    async def write_from_dbr(self, data: Any, *args: Any, **kwargs: Any) -> None:
        """Store a client's text; caproto cannot convert one that is empty."""
        if np.any(np.frombuffer(data, np.uint8)):
            await super().write_from_dbr(data, *args, **kwargs)
        else:
            await self.write("")
            if self.on_put is not None:
                await self.on_put("")


def double(
    value: float = 0.0,
    *,
    units: str = "",
    precision: int = 4,
    limits: tuple[float, float] | None = None,
    read_only: bool = False,
) -> ChannelData:
    """Make a floating point channel; `limits` are published as control and display limits."""
    metadata: dict[str, float] = {}
    if limits is not None:
        low, high = limits
        metadata = {
            "lower_ctrl_limit": low,
            "upper_ctrl_limit": high,
            "lower_disp_limit": low,
            "upper_disp_limit": high,
        }
    channel = _Double(
        value=value, units=units, precision=precision, reported_record_type="ao", **metadata
    )
    channel.read_only = read_only
    return channel


def integer(value: int = 0, *, units: str = "", read_only: bool = False) -> ChannelData:
    """Make a 32-bit integer channel."""
    channel = _Integer(value=value, units=units, reported_record_type="longout")
    channel.read_only = read_only
    return channel


def short(value: int = 0, *, read_only: bool = False) -> ChannelData:
    """Make a 16-bit integer channel, the type of most fields of a motor record."""
    channel = _Short(value=value)
    channel.read_only = read_only
    return channel


def menu(choices: Sequence[str], value: int = 0, *, read_only: bool = False) -> ChannelData:
    """Make an enumeration channel whose choices are `choices`, at number `value`."""
    channel = _Menu(value=choices[value], enum_strings=tuple(choices), reported_record_type="mbbo")
    channel.read_only = read_only
    return channel


def string(value: str = "", *, read_only: bool = False) -> ChannelData:
    """Make a STRING channel (at most 39 characters)."""
    channel = _String(value=value, reported_record_type="stringout")
    channel.read_only = read_only
    return channel


def long_string(value: str = "", *, read_only: bool = False) -> ChannelData:
    """Make a CHAR waveform that holds text, as areaDetector does for paths: bytes of UTF-8."""
    channel = _LongString(
        value=value,
        max_length=LONG_STRING_LENGTH,
        reported_record_type="waveform",
        string_encoding="utf-8",
    )
    channel.read_only = read_only
    return channel


async def post(channel: ChannelData, value: Any, **metadata: Any) -> None:
    """Write `value` from the server side, and tell the subscribers only if something changed."""
    if isinstance(channel, ChannelEnum) and isinstance(value, int | np.integer):
        value = channel.enum_strings[int(value)]
    if value != channel.value or metadata:
        await channel.write(value, **metadata)


def with_readback(
    database: Database, name: str, make: Callable[..., ChannelData], *args: Any, **kwargs: Any
) -> ChannelData:
    """Add `name` and `name_RBV`, the areaDetector pair, and return the one that clients write.

    A put is copied to the readback before any further hook runs.
    """
    setpoint = make(*args, **kwargs)
    readback = make(*args, **kwargs, read_only=True)

    async def follow(value: Any) -> None:
        await post(readback, value)

    setpoint.on_put = follow
    database[name] = setpoint
    database[f"{name}_RBV"] = readback
    return setpoint


def add_fixed(database: Database, name: str, setpoint: ChannelData) -> None:
    """Add `name` and `name_RBV` of a setting that the hardware lacks: a put springs back."""
    value = setpoint.value
    readback = type(setpoint)(**setpoint.__getnewargs_ex__()[1])
    readback.read_only = True

    async def restore(_value: Any) -> None:
        await post(setpoint, value)

    setpoint.on_put = restore
    database[name] = setpoint
    database[f"{name}_RBV"] = readback
