"""`mistral-txm process`: from files of the facility, or our own runs, to aligned stacks before reconstruction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction import AlignedSeries, FileError, read_aligned, write_aligned
from mistral_txm.reconstruction.straighten import straightened
from mistral_txm.services.aligned_views import AlignedViews, SeriesAlignment
from mistral_txm.services.alignment import align
from mistral_txm.services.angle_signals import AngleSignals, ProcessingError
from mistral_txm.services.exposures import RunExposures
from mistral_txm.services.film_height import surfaces_of
from mistral_txm.services.findings import summary
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.processing import Processor
from mistral_txm.services.raw_files import RawInput, is_aligned_file, raw_signals
from mistral_txm.services.series_exposures import SeriesExposures


@dataclass(frozen=True)
class Processed:
    """The files written, one per azimuth, how the views were aligned, and a line for all that is not as it should."""

    paths: tuple[Path, ...]
    alignment: SeriesAlignment | None = None
    notes: tuple[str, ...] = ()


def process(
    raw: Sequence[str], output: Path, data: Path, files: RawInput | None = None
) -> Processed:
    """Turn raw data into aligned stacks, one file per azimuth, and return what was written.

    Parameters
    ----------
    raw
        Either files of the facility or folders of them: Xradia's or MARTApp's images, MARTApp's ``TomoNormalized``
        stacks, one per helicity, NXtomo, or one aligned file, which is passed on; or the uid of one run or series of
        the data folder, or its first characters.
    output
        File; with several azimuths ``_phiNNN`` is put before its ending.
    data
        The data folder, for uids.
    files
        What the files themselves do not say.

    Raises
    ------
    ValueError
        If the input is not one of these, or lacks something; one line.
    FrameError
        If a frame is damaged, and nothing takes its place.
    """
    paths = [Path(one) for one in raw]
    if all(path.exists() for path in paths):
        if len(paths) == 1 and is_aligned_file(paths[0]):
            write_aligned(output, read_aligned(paths[0]))
            return Processed((output,))
        files = files or RawInput()
        made, pixel_nm, notes = raw_signals(paths, files)
        surfaces_nm = files.surfaces_nm
    elif len(raw) > 1 or paths[0].suffix:
        missing = next(path for path in paths if not path.exists())
        raise FileError(f"{missing}: no such file")
    else:
        made, pixel_nm, surfaces_nm = _signals_of_runs(raw[0], data)
        notes = tuple(f"{line}; left out" for line in summary(made)["references_left_out"])
    views, alignment = align(made, pixel_nm, surfaces_nm)
    written = []
    for one in views:
        place = output
        if len(views) > 1:
            place = output.with_name(f"{output.stem}_phi{one.stated_phi_deg:03g}{output.suffix}")
        write_aligned(place, _straightened(one, pixel_nm))
        written.append(place)
    return Processed(tuple(written), alignment, notes)


def _signals_of_runs(
    uid: str, data: Path
) -> tuple[list[AngleSignals], float, tuple[float, float] | None]:
    """Return the signals of the run or series whose uid begins with ``uid``, its pixel, nm, and its surfaces."""
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
    return made, pixel_nm, surfaces_of(start["sample"])


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
        pixel_nm=pixel_nm,
        phi_deg=views.phi_deg,
        std_t=np.array([_usual_std(angle.signals.std_vu) for angle in views.angles]),
    )


def _usual_std(std_vu: NDArray[np.float32]) -> float:
    """Return the standard deviation of a usual pixel: the median of those that say anything."""
    return float(np.median(std_vu[np.isfinite(std_vu) & (std_vu > 0)]))
