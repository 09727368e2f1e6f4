"""What is left to do when a simulated measurement has ended: judge it by the truth, report, sum up."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from mistral_txm.profile_collection.acquire import MeasurementFailed
from mistral_txm.reconstruction import read_volume
from mistral_txm.reconstruction.files import replaced_when_complete
from mistral_txm.services.catalog import open_catalog, reading, wait_until_written
from mistral_txm.services.exposures import STREAMS
from mistral_txm.services.frame_files import frame_crc32
from mistral_txm.services.live_files import LIVE, PAIR, STATUS, VOLUME, read_pair, read_status
from mistral_txm.services.measured_series import measured_series
from mistral_txm.services.report import write_report
from mistral_txm.services.series_exposures import SeriesExposures, taken
from mistral_txm.services.truth import (
    fiducials_move_xy_nm,
    margin_seen_by_all_nm,
    moved,
    read_truth,
)
from mistral_txm.services.truth_comparison import compare_with_truth
from mistral_txm.services.verification import read_series, verify

POLL_S = 0.2
LIVE_TIMEOUT_S = 600.0
"""How long the live reconstruction may publish nothing new, s; in all it may take longer, with 174 angles to read."""
CATALOG_TIMEOUT_S = 600.0

Stage = Callable[[str], AbstractContextManager[None]]


def conclude(data: Path, series: str, stage: Stage, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Write ``magnetization.h5``, the report and ``summary.json`` of a simulated series; return the summary.

    Parameters
    ----------
    data
        Data folder, with the truth that the simulated beamline left there.
    series
        Uid of the series; all of it was taken.
    stage
        Times a stage under its name.
    seconds
        Stages timed so far; those of this function are added by ``stage`` as they end.

    Raises
    ------
    MeasurementFailed
        If the live reconstruction or the catalog does not get done, or frames are missing or damaged.
    """
    with stage("live reconstruction catches up"):
        status = _finished_live(data, series)
        volume_path = data / "magnetization.h5"
        _copy(data / LIVE / series / VOLUME, volume_path)
    with stage("catalog catches up"):
        _wait_for_catalog(data)
    with stage("verification"):
        frames = _frames(data, series)
    (record,) = read_series(data, series)
    start = record.runs[0].start
    with stage("comparison with the truth"):
        volume, truth = read_volume(volume_path), read_truth(data / "truth.h5")
        move_xy_nm = fiducials_move_xy_nm(truth, status["alignment"]["spheres_xyz_nm"])
        angles = {(phi_deg, theta_deg) for phi_deg, theta_deg, *_ in start["planned_keys"]}
        margin_nm = margin_seen_by_all_nm(
            truth.m_czyx.shape[3] * truth.voxel_nm,
            max(abs(edge) for layer in truth.layers_nm for edge in layer),
            sorted({phi_deg for phi_deg, _ in angles}),
            max(abs(theta_deg) for _, theta_deg in angles),
        )
        errors = compare_with_truth(volume, moved(truth, move_xy_nm), margin_nm=margin_nm)
    summary: dict[str, Any] = {
        "series": series,
        "runs": [run.start["uid"] for run in record.runs],
        "sample": start["sample"],
        "simulation": start["simulation"],
        "frames": frames,
        "errors": {name: value for name, value in errors.items() if name != "singularities"},
        "singularities": errors["singularities"],
        "alignment": status["alignment"],
        "truth_move_xy_nm": move_xy_nm,
        "live": {
            key: status[key] for key in ("updates", "update_s", "lag_frames", "method", "prior")
        },
        "exposures": _pace(record),
        "seconds": dict(seconds),
    }
    with stage("report"):
        write_report(
            volume_path,
            data / "report",
            truth_path=data / "truth.h5",
            truth_move_xy_nm=move_xy_nm,
            frames=read_pair(data / LIVE / series / PAIR),
            summary=summary,
            measured=measured_series(data, series),
        )
    summary["seconds"] = dict(seconds)
    _write(data, summary)
    return summary


def conclude_edges(data: Path, series: Sequence[str], stage: Stage) -> dict[str, Any]:
    """Wait until the series of a measurement at several photon energies are reconstructed, each alone; write a summary.

    Their volumes stay where the live reconstruction puts them. The truth is that of one energy, and not compared.
    Parameters, results and errors are those of `conclude`.
    """
    with stage("live reconstruction catches up"):
        for uid in series:
            _finished_live(data, uid)
    with stage("catalog catches up"):
        _wait_for_catalog(data)
    with stage("verification"):
        frames = {uid: _frames(data, uid) for uid in series}
    summary = {
        "series": {
            uid: {**counted, "volume": str(data / LIVE / uid / VOLUME)}
            for uid, counted in frames.items()
        }
    }
    _write(data, summary)
    return summary


def _wait_for_catalog(data: Path) -> None:
    if not wait_until_written(data, CATALOG_TIMEOUT_S):
        raise MeasurementFailed(
            f"the catalog did not catch up within {CATALOG_TIMEOUT_S:g} s; see {data / 'logs' / 'catalog.log'}"
        )


def _write(data: Path, summary: Mapping[str, Any]) -> None:
    with replaced_when_complete(data / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")


def _finished_live(data: Path, series: str) -> dict[str, Any]:
    """Wait until the live reconstruction has used all exposures; return its last status.

    A status that does not know all of them yet is an older one, also where it says ``complete`` or ``error``.
    """
    (record,) = read_series(data, series)
    runs = taken(record.runs)
    path = data / LIVE / series / STATUS
    told: dict[str, Any] = {}
    since_s = time.monotonic()
    while time.monotonic() < since_s + LIVE_TIMEOUT_S:
        if path.exists():
            status = read_status(path)
            if (news := {**status, "updated_at": None}) != told:
                told, since_s = news, time.monotonic()
            known = status.get("runs") == runs
            if known and status["state"] == "complete":
                return status
            if known and status["state"] == "error":
                raise MeasurementFailed(f"the live reconstruction stopped: {status['message']}")
        time.sleep(POLL_S)
    raise MeasurementFailed(
        f"the live reconstruction did not get further for {LIVE_TIMEOUT_S:g} s; "
        f"see {data / 'logs' / 'live.log'}"
    )


def _copy(source: Path, target: Path) -> None:
    with replaced_when_complete(target) as temporary:
        shutil.copyfile(source, temporary)


def _frames(data: Path, series: str) -> dict[str, Any]:
    """Count frames: planned, taken, in the catalog, and proven on disk by their checksums.

    Of each stream of each run the first and the last frame are read through the catalog as well.
    """
    (verified,) = verify(data, series)
    (record,) = read_series(data, series)
    catalog = open_catalog(data)
    in_catalog = read_back = 0
    for run in record.runs:
        entry = catalog[run.start["uid"]]
        for stream in STREAMS:
            exposures = run.stream(stream)
            if not exposures:
                continue
            frames_euvx = entry[stream]["ccd"]
            if stream == "primary":
                in_catalog += len(frames_euvx)
            for index in sorted({0, len(exposures) - 1}):
                with reading(data, run.start["uid"]):
                    frame_uvx = np.asarray(frames_euvx[index])
                if frame_crc32(frame_uvx) != exposures[index].crc32:
                    raise MeasurementFailed(
                        f"run {run.start['uid']}: frame {index} of {stream} differs in the catalog"
                    )
                read_back += 1
    return {
        "asked": verified.planned,
        "taken": len(verified.accepted),
        "in_catalog": in_catalog,
        "read_back_from_catalog": read_back,
        "verified_on_disk": verified.frames_read - len(verified.damaged),
        "missing": len(verified.missing),
        "damaged": len(verified.damaged),
    }


def _pace(record: SeriesExposures) -> dict[str, float]:
    """How fast exposures came: median time between neighbouring Events, s, and the most frames in a second."""
    gaps_s: list[float] = []
    for run in record.runs:
        times_s = sorted(exposure.time for exposure in run.stream("primary"))
        gaps_s += list(np.diff(times_s))
    return {
        "median_s_per_exposure": round(float(np.median(gaps_s)), 4),
        "p99_s_per_exposure": round(float(np.percentile(gaps_s, 99)), 4),
    }
