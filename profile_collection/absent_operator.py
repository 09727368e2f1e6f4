"""Plans that run while nobody sits at a keyboard: what asks for a person pauses the plan."""

import asyncio
import logging
import time

from bluesky import Msg, RunEngine

from mistral_txm.devices.sample import Azimuth
from mistral_txm.plans.operator import planned_azimuth_deg

logger = logging.getLogger("mistral_txm.measurement")


class AbsentOperator:
    """Answers a plan's prompts by what was said of the sample meanwhile: the RunEngine's ``input`` command.

    A prompt for an azimuth pauses the plan, and the log says what is asked for. Somebody turns the sample,
    sets `azimuth`, and resumes; the plan then asks again, and gets that answer. Resumed without one, it
    pauses again. An azimuth that is far from the plan has to be set twice, as at a keyboard.
    """

    def __init__(self, RE: RunEngine, azimuth: Azimuth) -> None:
        self._RE = RE
        self._azimuth = azimuth
        self._asked = ""
        self._asked_at_s = 0.0

    async def __call__(self, message: Msg) -> str:
        """Return the azimuth that was set since the same prompt was asked before, else pause.

        Raises
        ------
        RuntimeError
            If the prompt asks for something else than an azimuth.
        """
        prompt: str = message.kwargs.get("prompt", "")
        phi_deg = planned_azimuth_deg(prompt)
        if phi_deg is None:
            raise RuntimeError(f"nobody is there to answer {prompt!r}")
        if prompt == self._asked and self._azimuth.given_at_s.get() > self._asked_at_s:
            self._asked = ""
            return f"{self._azimuth.phi_deg:.6f}"
        self._asked, self._asked_at_s = prompt, time.time()
        logger.error("paused: turn the sample to phi = %g deg, set azimuth, and resume", phi_deg)
        # The pause cancels this command. What waits for it must not be the engine's own loop.
        await asyncio.get_running_loop().run_in_executor(None, self._RE.request_pause)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a paused plan went on without being resumed")
