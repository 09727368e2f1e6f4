"""What runs have seen of the sample, told from their journal: the run that resumes a measurement begins with it."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mistral_txm.devices.configuration import CcdSettings
from mistral_txm.devices.key import Key
from mistral_txm.plans.exposure_control import Frame, Looked, Seen
from mistral_txm.plans.steps import Step
from mistral_txm.profile_collection.measured import Measured
from mistral_txm.services.exposures import STREAMS
from mistral_txm.services.journal import journal_files, read_journal


def looked(
    data: Path, chosen: Measured, ccd: CcdSettings, done: Mapping[float, Collection[Key]]
) -> Looked:
    """Count once more what the plan counted: of the sample, those exposures that are done.

    Parameters
    ----------
    data
        The data folder.
    chosen
        The measurement.
    ccd
        The camera, whose counts they are.
    done
        By photon energy, the keys that are not taken again.
    """
    counting = {
        (one.run_uid, one.seq_num)
        for energy_ev, series in chosen.series.items()
        for key, one in series.accepted().items()
        if key in done.get(energy_ev, ())
    }
    energies_ev = {
        run.start["uid"]: energy_ev
        for energy_ev, series in chosen.series.items()
        for run in series.runs
    }
    found = Looked()
    for path in journal_files(data / "journal"):
        documents = read_journal(path)
        name, start = next(documents, ("", {}))
        if name != "start" or start["uid"] not in energies_ev:
            continue
        seen, streams = Seen(ccd, found), {}
        for name, doc in documents:
            if name == "descriptor" and doc["name"] in STREAMS:
                streams[doc["uid"]] = doc["name"]
            elif name == "event" and (stream := streams.get(doc["descriptor"])):
                if stream == "primary" and (start["uid"], doc["seq_num"]) not in counting:
                    continue
                _add(seen, stream, energies_ev[start["uid"]], doc["data"])
        found = seen.looked
    return found


def _add(seen: Seen, stream: Any, energy_ev: float, columns: Mapping[str, Any]) -> None:
    """Count the exposure of an Event."""
    repeat = int(columns["key_repeat"])
    exposure_s = float(columns["ccd_exposure_s"])
    step = Step(
        stream,
        float(columns["key_phi_deg"]),
        float(columns["key_theta_deg"]),
        int(columns["key_helicity"]),
        energy_ev,
        exposure_s,
        (repeat,),
    )
    frame = Frame(
        mean_counts=float(columns["ccd_mean_counts"]),
        bright_counts=float(columns["ccd_bright_counts"]),
        saturated_fraction=float(columns["ccd_saturated_fraction"]),
        ring_current_ma=float(columns["ring_current"]),
        crc32=int(columns["ccd_frame_crc32"]),
        helicity=int(columns["polarization"]),
    )
    seen.add(step, repeat, exposure_s, frame)
