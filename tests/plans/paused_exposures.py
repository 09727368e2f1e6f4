"""Pauses a series in the middle of exposures that take time; prints what came of it as JSON.

A script, not a test module: it needs a beamline with a time scale of its own.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


def measure(data: Path) -> dict[str, Any]:
    import h5py
    from bluesky import Msg, RunEngine
    from bluesky.utils import RunEngineInterrupted

    from mistral_txm.devices.configuration import load_configuration
    from mistral_txm.devices.instrument import make_instrument
    from mistral_txm.plans import Measurement, Sample, tilt_series
    from mistral_txm.plans.measurement import Darks, Flats, Tilts

    instrument = make_instrument(load_configuration(), data / "frames")
    instrument.connect(120.0)
    instrument.azimuth.set(0.0)
    measurement = Measurement(
        sample=Sample(name="film"),
        tilts=(Tilts(first_deg=1.0, last_deg=1.0, exposure_s=10.0, repeats=3),),
        azimuths_deg=(0.0,),
        flats=Flats(exposure_s=0.1, repeats=1),
        darks=Darks(repeats=1),
        energies_ev=(707.4,),
    )
    run_engine = RunEngine({}, context_managers=[])
    events: list[dict[str, Any]] = []
    run_engine.subscribe(lambda _, event: events.append(event["data"]), "event")
    exposures = 0

    def pause_soon(message: Msg) -> None:
        nonlocal exposures
        if message.command == "trigger" and instrument.shutter.is_open:
            exposures += 1
            if exposures % 2 == 1 and instrument.ccd.cam.acquire_time.get() == 10.0:
                threading.Timer(0.15, run_engine.request_pause, (False,)).start()

    run_engine.msg_hook = pause_soon
    pauses, open_while_paused = 0, 0
    act: Any = lambda: run_engine(tilt_series(instrument, measurement, 0.0, series="s"))  # noqa: E731
    while True:
        try:
            act()
            break
        except RunEngineInterrupted:
            pauses += 1
            time.sleep(0.2)
            open_while_paused += instrument.shutter.is_open
            act = run_engine.resume
    exposed = [event for event in events if event.get("key_helicity")]
    columns = ("key_phi_deg", "key_theta_deg", "key_helicity", "key_repeat")
    frames = 0
    for path in data.rglob("*.h5"):
        if path.parent.name == "s":
            with h5py.File(path) as file:
                frames += len(file["/entry/data/data"])
    return {
        "pauses": pauses,
        "open_while_paused": open_while_paused,
        "events": len([event for event in events if "ccd_frame_number" in event]),
        "frames": frames,
        "keys": [
            [event[c] for c in columns] for event in exposed if event["ccd_exposure_s"] == 10.0
        ],
        "planned": [list(key) for key in measurement.planned_keys()],
    }


def main() -> None:
    data = Path(sys.argv[1])
    command = [sys.executable, "-m", "mistral_txm.simulated_beamline", "--data", str(data)]
    command += ["--lifeline", "--seed", "1", "--time-scale", "0.05"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = json.loads(process.stdout.readline())["port"]
            os.environ.update(
                EPICS_CA_ADDR_LIST="127.0.0.1",
                EPICS_CA_AUTO_ADDR_LIST="NO",
                EPICS_CA_SERVER_PORT=str(port),
            )
            print(json.dumps(measure(data)))
        finally:
            process.stdin.close()


if __name__ == "__main__":
    main()
