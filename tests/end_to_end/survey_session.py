"""Runs plans of a survey on a simulated beamline of its own; its answers are for test_survey.

Usage: survey_session.py CONDITIONS SEED DATA PLANS, where PLANS is a JSON list of [name, options] in order. Prints a
line of JSON: what each returned, and where everything stood then.
"""

import json
import sys
from pathlib import Path
from typing import Any

from mistral_txm.profile_collection.channel_access import use_control_server
from mistral_txm.services.lifeline import ServiceProcess


def run(data: Path, wanted: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Run the plans in a RunEngine with a journal."""
    # ophyd is imported when the port is known: libca reads its environment once.
    from bluesky import RunEngine

    from mistral_txm.devices.configuration import load_configuration
    from mistral_txm.devices.instrument import make_instrument
    from mistral_txm.profile_collection.survey_plans import survey_plans
    from mistral_txm.services.journal import JournalWriter

    instrument = make_instrument(load_configuration(), data / "frames")
    instrument.connect(120.0)
    instrument.azimuth.set(0.0).wait(120)
    plans = survey_plans(instrument, data)
    results: list[dict[str, Any]] = []
    with JournalWriter(data / "journal") as journal:
        RE = RunEngine({}, context_managers=[], call_returns_result=True)
        RE.subscribe(journal)
        for name, options in wanted:
            failure = ""
            returned = None
            if name == "place":  # as an operator would have left it
                instrument.theta.set(options.pop("theta_deg", 0.0)).wait(120)
                for axis, value in options.items():
                    getattr(instrument.sample_position, axis).put(value)
                instrument.sample_position.set("in").wait(120)
            else:
                try:
                    returned = RE(plans[name](**options)).plan_result
                except ValueError as refusal:
                    failure = str(refusal)
            place = instrument.sample_position
            results.append(
                {
                    "returned": None if returned is None else str(returned),
                    "failure": failure,
                    "place_um": [place.in_x_um.get(), place.in_y_um.get(), place.in_z_um.get()],
                    "stages_um": [
                        axis.position
                        for axis in (instrument.sample_x, instrument.sample_y, instrument.sample_z)
                    ],
                    "theta_deg": instrument.theta.position,
                    "shutter_is_open": instrument.shutter.is_open,
                }
            )
    return results


def main() -> None:
    """Serve, run and print."""
    conditions, seed, folder, wanted = sys.argv[1:]
    data = Path(folder)
    options = ["--data", folder, "--lifeline", "--time-scale", "0", "--seed", seed]
    options += ["--conditions", conditions]
    module = "mistral_txm.simulated_beamline"
    with ServiceProcess(module, options, log=data / "beamline.log") as service:
        use_control_server(int(service.wait_ready(300.0)["port"]))
        print(json.dumps(run(data, json.loads(wanted))))


if __name__ == "__main__":
    main()
