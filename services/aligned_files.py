"""`mistral-txm process`: from files of the facility, or our own runs, to aligned stacks before reconstruction."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import (
    AlignedSeries,
    FileError,
    read_aligned,
    read_normalized,
    write_aligned,
)
from mistral_txm.reconstruction.signal import mean_absorbance
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.processing import AngleSignals, ProcessingError, Processor
from mistral_txm.services.series_exposures import SeriesExposures


def process(raw: Sequence[str], output: Path, data: Path) -> list[Path]:
    """Turn raw data into aligned stacks, one file per azimuth, and return the files written.

    Parameters
    ----------
    raw
        Either files of one azimuth in MARTApp's formats (the aligned file, or one ``TomoNormalized`` file per
        helicity), or the uid of one run or series of the data folder, or its first characters.
    output
        File; with several azimuths ``_phiNNN`` is put before its ending.
    data
        The data folder, for uids.

    Raises
    ------
    ValueError
        If the input is not one of these, or lacks something; one line.
    FrameError
        If a frame of a run is damaged.
    """
    paths = [Path(one) for one in raw]
    if all(path.exists() for path in paths):
        series = _from_files(paths)
        write_aligned(output, series)
        return [output]
    if len(raw) > 1 or paths[0].suffix:
        missing = next(path for path in paths if not path.exists())
        raise FileError(f"{missing}: no such file")
    by_azimuth = _from_runs(raw[0], data)
    written = []
    for phi_deg, series in by_azimuth.items():
        place = output
        if len(by_azimuth) > 1:
            place = output.with_name(f"{output.stem}_phi{phi_deg:03g}{output.suffix}")
        write_aligned(place, series)
        written.append(place)
    return written


def _from_files(paths: Sequence[Path]) -> AlignedSeries:
    if len(paths) == 1 and not _has_group(paths[0], "TomoNormalized"):
        return read_aligned(paths[0])
    if len(paths) != 2:
        raise FileError(
            f"{len(paths)} files: expected MARTApp's aligned file of one azimuth, or its two TomoNormalized files, "
            "one per helicity"
        )
    stacks = sorted((read_normalized(path) for path in paths), key=lambda stack: stack.polarization)
    if not stacks[0].polarization < 0 < stacks[1].polarization:
        raise FileError(
            f"{paths[0]} and {paths[1]}: polarisations {stacks[0].polarization:g} and {stacks[1].polarization:g}; "
            "expected one negative and one positive"
        )
    negative, positive = (mean_absorbance(one.transmittance_tvu, one.theta_deg) for one in stacks)
    return _paired(positive, negative, paths)


def _has_group(path: Path, name: str) -> bool:
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path) as file:
        return name in file


def _paired(
    positive: tuple[NDArray[np.float64], NDArray[np.float32]],
    negative: tuple[NDArray[np.float64], NDArray[np.float32]],
    paths: Sequence[Path],
) -> AlignedSeries:
    """Pair two stacks of absorbance, each with its tilts."""
    (theta_deg, plus_tvu), (other_deg, minus_tvu) = positive, negative
    if plus_tvu.shape != minus_tvu.shape or not np.allclose(theta_deg, other_deg, atol=0.05):
        raise FileError(
            f"{paths[0]} and {paths[1]}: {plus_tvu.shape} and {minus_tvu.shape} images at {len(theta_deg)} and "
            f"{len(other_deg)} tilts; expected the same tilts and the same pixels in both"
        )
    return AlignedSeries(
        theta_deg=theta_deg,
        dichroic_tvu=((plus_tvu - minus_tvu) / 2).astype(np.float32),
        absorption_tvu=((plus_tvu + minus_tvu) / 2).astype(np.float32),
        positive_tvu=plus_tvu,
        negative_tvu=minus_tvu,
    )


def _from_runs(uid: str, data: Path) -> dict[float, AlignedSeries]:
    """Make the series of each azimuth from the run or series whose uid begins with ``uid``."""
    runs = [RunExposures.of(read_journal(path)) for path in journal_files(data / "journal")]
    chosen = [
        run
        for run in runs
        if run.start.get("planned_keys")
        and any(run.start[name].startswith(uid) for name in ("uid", "series"))
    ]
    if not chosen or len({run.start["series"] for run in chosen}) > 1:
        raise FileError(
            f"{uid}: no such file, and {'more than one' if chosen else 'no'} run or series of that uid in {data}"
        )
    collected = SeriesExposures(chosen[0].start)
    for run in chosen:
        collected.add_run(run)
    processor = Processor(float(chosen[0].start["saturation_counts"]))
    made = [processor.signals(angle) for angle in collected.finished().values()]
    if not made:
        raise ProcessingError(
            f"{uid}: no angle of it is finished in both helicities; resume the series first"
        )
    by_azimuth: dict[float, list[AngleSignals]] = {}
    for one in sorted(made, key=lambda one: (one.phi_deg, one.theta_deg)):
        by_azimuth.setdefault(one.phi_deg, []).append(one)
    return {
        phi_deg: AlignedSeries(
            theta_deg=np.array([one.theta_deg for one in angles]),
            dichroic_tvu=np.stack([one.signals.dichroic_vu for one in angles]),
            absorption_tvu=np.stack([one.signals.absorption_vu for one in angles]),
            positive_tvu=np.stack(
                [one.signals.absorption_vu + one.signals.dichroic_vu for one in angles]
            ),
            negative_tvu=np.stack(
                [one.signals.absorption_vu - one.signals.dichroic_vu for one in angles]
            ),
        )
        for phi_deg, angles in by_azimuth.items()
    }
