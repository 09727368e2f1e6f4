"""The people of a simulated measurement: one turns the sample and answers the prompt, others bring the light back."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import epics
from bluesky import Msg
from ophyd import EpicsSignal

from mistral_txm.devices.configuration import Simulation
from mistral_txm.plans.operator import planned_azimuth_deg

DARK = ("beam_dump", "front_end_closed")
"""Faults that take the light, until somebody turns them off."""
RESTORE_S = 5.0
"""How long it stays away then, s."""

logger = logging.getLogger("mistral_txm.measurement")


class SimulatedOperator:
    """Answers the plans' prompts in place of the keyboard: the RunEngine's ``input`` command.

    A prompt that asks for an azimuth is obeyed as a person would: the sample is turned by hand, which only
    the simulated beamline's own process variable can do, and the angle is typed in.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._azimuth = EpicsSignal(simulation.azimuth_address.name, name="hand")

    async def __call__(self, message: Msg) -> str:
        """Answer one prompt.

        Raises
        ------
        RuntimeError
            If the prompt asks for something that a simulated person cannot do.
        """
        prompt: str = message.kwargs.get("prompt", "")
        phi_deg = planned_azimuth_deg(prompt)
        if phi_deg is None:
            raise RuntimeError(f"the simulated operator does not understand {prompt!r}")
        self.turn(phi_deg)
        return f"{phi_deg:g}"

    def turn(self, phi_deg: float) -> None:
        """Turn the sample by hand."""
        self._azimuth.put(phi_deg, wait=True)


@contextmanager
def restoring_light(faults: Any, after_s: float = RESTORE_S) -> Iterator[None]:
    """Bring the light back where a fault took it, as the control room does: what waits for it goes on by itself.

    Parameters
    ----------
    faults
        The device of all faults.
    after_s
        How long the light stays away, s.
    """
    timers: list[threading.Timer] = []

    def restore(name: str) -> None:
        epics.ca.use_initial_context()
        logger.info("simulated control room: %s is over, the light comes back", name)
        getattr(faults, name).put(0)

    def changed(name: str, *, value: Any, **_: Any) -> None:
        if value:
            timers.append(threading.Timer(after_s, restore, (name,)))
            timers[-1].start()

    signals = {name: getattr(faults, name) for name in DARK}
    tokens = [
        (signal, signal.subscribe(partial(changed, name))) for name, signal in signals.items()
    ]
    try:
        yield
    finally:
        for signal, token in tokens:
            signal.unsubscribe(token)
        for timer in timers:
            timer.cancel()
