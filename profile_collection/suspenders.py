"""Suspenders: where the light is lost, an exposure is given up at once, and the plan goes on by itself.

A plan that was written for it checks every exposure and takes it again by itself, in an engine without suspenders, too.
These save the rest of an exposure that is lost anyway, keep the shutter closed meanwhile, serve every other plan, and
tell the operator what is waited for.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from bluesky import RunEngine
from bluesky.suspenders import SuspenderBase

from mistral_txm.devices.instrument import Instrument
from mistral_txm.devices.light import OPEN
from mistral_txm.plans.light_words import GOING_ON, going_on_in, waiting

logger = logging.getLogger("mistral_txm.measurement")


class LightSuspender(SuspenderBase):  # type: ignore[misc]  # bluesky is untyped
    """Suspends a plan that needs light while a signal says that none can come.

    A plan needs light while the shutter is open. So moves, dark frames and what is put back go on without it, and a
    plan may begin; it is suspended where it opens the shutter. A suspension closes that, as the engine stops what it
    has moved, and gives up the exposure; later the plan repeats from its last checkpoint on.

    What signals say is handed to the engine's own thread, where all is decided, one after the other. (That of bluesky
    makes its event from the thread of the signal, within a tenth of a second: an engine that writes to a slow disk
    meanwhile misses the trip. And a suspended plan that is paused and resumed goes on without light.)

    Parameters
    ----------
    signal
        What is watched.
    trouble
        Says in one line what is wrong with a value of it; empty where nothing is.
    shutter
        Its `status` says whether light is needed.
    recovery_s
        How long the light has to be back before the plan goes on, s.
    """

    def __init__(
        self, signal: Any, trouble: Callable[[Any], str], shutter: Any, recovery_s: float
    ) -> None:
        super().__init__(signal, sleep=recovery_s)
        self.beside: Sequence[LightSuspender] = (self,)
        self._trouble_of = trouble
        self._shutter = shutter
        self._why = ""
        self._light_is_needed = False
        self._has_asked = False
        self._is_waiting = False
        self._news = asyncio.Event()

    def __repr__(self) -> str:
        """Say what is watched, and what is wrong with it."""
        return f"<{type(self).__name__} of {self._why or self._sig.name}>"

    @property
    def tripped(self) -> bool:
        """Whether no light can come, by this signal."""
        return bool(self._why)

    def install(self, RE: RunEngine, *, event_type: str | None = None) -> None:
        """Begin to watch."""
        self.RE = RE
        self._sig.subscribe(self, event_type=event_type, run=True)
        self._shutter.status.subscribe(self._shutter_says, run=True)

    def remove(self) -> None:
        """Watch no longer; a plan that is suspended goes on."""
        self._sig.clear_sub(self)
        self._shutter.status.clear_sub(self._shutter_says)
        if self.RE is not None:
            self.RE.loop.call_soon_threadsafe(self._take, "")

    def get_futures(self) -> tuple[list[Any], str]:
        """Have no plan wait before it begins: it waits where it needs light."""
        return [], ""

    def __call__(self, value: Any, **_: Any) -> None:
        """Take what the signal says."""
        self.RE.loop.call_soon_threadsafe(self._take, self._trouble_of(value))

    def _shutter_says(self, value: Any, **_: Any) -> None:
        self.RE.loop.call_soon_threadsafe(self._need, str(value).lower() == "open")

    def _should_suspend(self, value: Any) -> bool:
        return bool(self._trouble_of(value))

    def _should_resume(self, value: Any) -> bool:
        return not self._trouble_of(value)

    def _take(self, why: str) -> None:
        if bool(why) != bool(self._why):
            for each in self.beside:
                each._news.set()
        self._why = why
        self._decide()

    def _need(self, light: bool) -> None:
        self._light_is_needed = light
        if not light:
            self._has_asked = False
        self._decide()

    def _decide(self) -> None:
        """Suspend the plan, once for each time that the shutter was opened.

        An engine that pauses, suspends or ends closes the shutter by itself; after a pause, the plan opens it again.
        """
        asked = any(each._has_asked for each in self.beside)
        if self._why and self._light_is_needed and not asked and self.RE.state == "running":
            self._has_asked = True
            logger.warning(waiting(self._why))
            self.RE.request_suspend(self._light, justification=self._why)

    async def _light(self) -> None:
        """Wait until all signals have been well for the time of recovery."""
        self._is_waiting = True
        recovery_s = self._sleep
        while True:
            self._news.clear()
            troubled = [each for each in self.beside if each._why]
            in_trouble, recovery_s = (
                bool(troubled),
                max([recovery_s, *(each._sleep for each in troubled)]),
            )
            try:
                await asyncio.wait_for(self._news.wait(), None if in_trouble else recovery_s)
            except TimeoutError:
                break
            if in_trouble and recovery_s and not any(each._why for each in self.beside):
                logger.info(going_on_in(recovery_s))
        self._is_waiting = False
        logger.info(GOING_ON)

    @property
    def waits_for(self) -> str:
        """What a suspended plan waits for; empty where none is."""
        if not self._is_waiting:
            return ""
        return next((each._why for each in self.beside if each._why), "the light has to stay")


def light_suspenders(instrument: Instrument) -> tuple[LightSuspender, ...]:
    """Make those for front end, ring current, and an injection that is near."""
    settings = instrument.configuration.light

    def front_end(status: Any) -> str:
        where = _where(instrument.front_end)
        return "" if status == OPEN else f"front_end: closed ({where} = {status}), expected open"

    def ring_current(current_ma: float) -> str:
        lowest_ma = settings.lowest_current_mA
        if current_ma >= lowest_ma:
            return ""
        where = _where(instrument.ring_current)
        return f"ring_current: {where} = {current_ma:.1f} mA, expected at least {lowest_ma:g} mA"

    def top_up(to_injection_s: float) -> str:
        if not 0 < to_injection_s < settings.top_up_guard_s:  # 0 and less: there is no top-up
            return ""
        return f"top_up: an injection comes in {to_injection_s:.1f} s ({_where(instrument.top_up)})"

    return tuple(
        LightSuspender(signal, trouble, instrument.shutter, recovery_s)
        for signal, trouble, recovery_s in (
            (instrument.front_end, front_end, settings.recovery_s),
            (instrument.ring_current, ring_current, settings.recovery_s),
            (instrument.top_up, top_up, 0.0),  # an injection takes no light away
        )
    )


def install(RE: RunEngine, suspenders: Sequence[LightSuspender]) -> None:
    """Install suspenders that wait for each other."""
    for each in suspenders:
        each.beside = suspenders
        RE.install_suspender(each)


def _where(signal: Any) -> str:
    return str(getattr(signal, "pvname", signal.name))
