"""Plans that run while nobody sits at a keyboard: what asks for a person pauses the plan."""

import asyncio
import logging
import math
import time

from bluesky import Msg, RunEngine

from mistral_txm.devices.sample import Azimuth
from mistral_txm.plans.operator import AGREEMENT_DEG, planned_azimuth_deg

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
        self._asked_deg = math.nan
        self._asked_at_s = 0.0
        self._doubtful_deg = math.nan

    async def __call__(self, message: Msg) -> str:
        """Return the azimuth that was set since it was asked for, else pause.

        (What was asked before a pause is asked twice after it: the engine repeats the message, and a plan does
        not get the response of a repeated one. So an answer holds until another azimuth is asked for.)

        Raises
        ------
        RuntimeError
            If the prompt asks for something else than an azimuth.
        """
        prompt: str = message.kwargs.get("prompt", "")
        phi_deg = planned_azimuth_deg(prompt)
        if phi_deg is None:
            raise RuntimeError(f"nobody is there to answer {prompt!r}")
        request = f"turn the sample to phi = {phi_deg:g} deg, set azimuth, and resume"
        if phi_deg != self._asked_deg:
            self._asked_deg, self._asked_at_s = phi_deg, time.time()
            self._doubtful_deg = math.nan
        elif self._azimuth.given_at_s.get() > self._asked_at_s:
            given_deg = self._azimuth.phi_deg
            if abs(given_deg - phi_deg) <= AGREEMENT_DEG or given_deg == self._doubtful_deg:
                return f"{given_deg:.6f}"
            self._asked_at_s, self._doubtful_deg = time.time(), given_deg
            request = (
                f"the plan says phi = {phi_deg:g} deg, azimuth was set to {given_deg:g} deg: set it again to keep "
                "it, or to what is right, and resume"
            )
        logger.error("paused: %s", request)
        # The pause cancels this command. What waits for it must not be the engine's own loop.
        await asyncio.get_running_loop().run_in_executor(None, self._RE.request_pause)
        await asyncio.get_running_loop().create_future()
        raise AssertionError("a paused plan went on without being resumed")
