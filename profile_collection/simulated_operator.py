"""The person of a simulated measurement: reads the prompt, turns the sample, answers."""

from bluesky import Msg
from ophyd import EpicsSignal

from mistral_txm.devices.configuration import Simulation
from mistral_txm.plans.operator import planned_azimuth_deg


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
