"""`mistral-txm process`: from files of the facility, or our own runs, to aligned stacks before reconstruction."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from mistral_txm.reconstruction.alignment import straightened
from mistral_txm.reconstruction.signal import mean_absorbance
from mistral_txm.services.alignment import AlignedViews, SeriesAlignment, align
from mistral_txm.services.angle_signals import ProcessingError
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.processing import Processor, surfaces_of
from mistral_txm.services.series_exposures import SeriesExposures


@dataclass(frozen=True)
class Processed:
    """The files written, one per azimuth, and how the views of our own runs were aligned."""

    paths: tuple[Path, ...]
    alignment: SeriesAlignment | None = None


def process(raw: Sequence[str], output: Path, data: Path) -> Processed:
    """Turn raw data into aligned stacks, one file per azimuth, and return what was written.

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
        return Processed((output,))
    if len(raw) > 1 or paths[0].suffix:
        missing = next(path for path in paths if not path.exists())
        raise FileError(f"{missing}: no such file")
    by_azimuth, alignment = _from_runs(raw[0], data)
    written = []
    for phi_deg, series in by_azimuth.items():
        place = output
        if len(by_azimuth) > 1:
            place = output.with_name(f"{output.stem}_phi{phi_deg:03g}{output.suffix}")
        write_aligned(place, series)
        written.append(place)
    return Processed(tuple(written), alignment)


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


def _from_runs(uid: str, data: Path) -> tuple[dict[float, AlignedSeries], SeriesAlignment]:
    """Make the series of each stated azimuth from the run or series whose uid begins with ``uid``."""
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
    start = chosen[0].start
    collected = SeriesExposures(start)
    for run in runs:
        rejects = run.is_rejection and run.start["series"] == start["series"]
        if rejects or run in chosen:
            collected.add_run(run)
    pixel_nm = float(start["pixel_nm"])
    processor = Processor(float(start["saturation_counts"]), pixel_nm)
    made = [collected.read(angle, processor.signals)[1] for angle in collected.finished().values()]
    if not made:
        raise ProcessingError(
            f"{uid}: no angle of it is finished in both helicities; resume the series first"
        )
    views, alignment = align(made, pixel_nm, surfaces_of(start["sample"]))
    return {one.stated_phi_deg: _straightened(one, pixel_nm) for one in views}, alignment


def _straightened(views: AlignedViews, pixel_nm: float) -> AlignedSeries:
    """Resample the views of an azimuth to where the film's points should fall, each helicity once.

    Views that are not aligned stay as they were exposed but for the helicities' offset.
    """
    positive, negative, dichroic = [], [], []
    for number, angle in enumerate(views.angles):
        mean_vu, half_vu = angle.signals.absorption_vu, angle.signals.dichroic_vu
        offset_nm = angle.helicity_offset.vu_nm
        if views.shift_vu_nm_t is None or views.warp_tvu is None:
            warp, shift_nm = np.eye(2), np.zeros(2)
        else:
            warp, shift_nm = views.warp_tvu[number], views.shift_vu_nm_t[number]
        plus, minus = mean_vu + half_vu, mean_vu - half_vu
        if views.shift_vu_nm_t is not None or angle.helicity_offset.is_known:
            plus, minus = (
                straightened(image, warp, shift_nm + sign * offset_nm / 2, pixel_nm)
                for image, sign in ((plus, 1), (minus, -1))
            )
        spoiled = views.spoiled(number, pixel_nm)
        if spoiled.any():
            spoiled = np.isnan(
                straightened(np.where(spoiled, np.nan, 0.0), warp, shift_nm, pixel_nm)
            )
        positive.append(plus.astype(np.float32))
        negative.append(minus.astype(np.float32))
        dichroic.append(np.where(spoiled, np.nan, (plus - minus) / 2).astype(np.float32))
    positive_tvu, negative_tvu = np.stack(positive), np.stack(negative)
    return AlignedSeries(
        theta_deg=views.theta_deg_t,
        dichroic_tvu=np.stack(dichroic),
        absorption_tvu=np.float32(0.5) * (positive_tvu + negative_tvu),
        positive_tvu=positive_tvu,
        negative_tvu=negative_tvu,
    )
