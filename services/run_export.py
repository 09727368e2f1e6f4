"""One run for other programs: its exposures as a table, its documents, its frames as NXtomo or as MARTApp's images."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.reconstruction.files import replaced_when_complete
from mistral_txm.reconstruction.martapp import ImageHeader, write_image
from mistral_txm.reconstruction.nxtomo import (
    DARK,
    FLAT,
    INVALID,
    PROJECTION,
    TomoEntry,
    write_nxtomo,
)
from mistral_txm.services.exposures import RETURN, STREAMS, Exposure, RunExposures
from mistral_txm.services.journal import journal_files, read_journal
from mistral_txm.services.runs import energy_ev

COLUMNS = (
    "stream",
    "seq_num",
    "phi_deg",
    "theta_deg",
    "helicity",
    "repeat",
    "theta_readback_deg",
    "exposure_s",
    "ring_current_mA",
    "saturated_fraction",
    "time",
    "file",
    "frame_number",
    "crc32",
)


def find_run(data: Path, uid: str) -> Path:
    """Return the journal file of the run whose uid begins with ``uid``.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    found = [path for path in journal_files(data / "journal") if path.stem.startswith(uid)]
    if len(found) != 1:
        raise ValueError(
            f"run {uid}: {len(found) or 'no'} such run in {data}; `mistral-txm runs list` shows all"
        )
    return found[0]


def export_run(data: Path, uid: str, format: str, output: Path) -> None:
    """Write one run into a file, whole or not at all.

    Parameters
    ----------
    data
        Data folder.
    uid
        Of the run, or its first characters.
    format
        One of `FORMATS`: ``csv`` (a line per exposure), ``jsonl`` (its documents), ``nxtomo`` (frames, with an
        entry for each helicity), ``martapp`` (a folder with a file for each frame, named as the beamline does).
    output
        The file, or folder.

    Raises
    ------
    ValueError
        If there is no such run or format, or it has no exposures.
    FrameError
        If a frame cannot be read.
    """
    journal = find_run(data, uid)
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: expected one of {', '.join(FORMATS)}")
    FORMATS[format](journal, output)


def _as_jsonl(journal: Path, output: Path) -> None:
    with replaced_when_complete(output) as temporary, temporary.open("w") as file:
        for document in read_journal(journal):
            file.write(json.dumps(document) + "\n")


def _with_exposures(journal: Path) -> RunExposures:
    run = RunExposures.of(read_journal(journal))
    if not run.in_order():
        raise ValueError(
            f"run {journal.stem}: it has no exposures; its documents can be exported as jsonl"
        )
    return run


def _as_csv(journal: Path, output: Path) -> None:
    run = _with_exposures(journal)
    with replaced_when_complete(output) as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for stream in STREAMS:
            for one in run.stream(stream):
                table.writerow(
                    (
                        one.stream,
                        one.seq_num,
                        *one.key,
                        one.theta_deg,
                        one.exposure_s,
                        one.ring_current_ma,
                        one.saturated_fraction,
                        one.time,
                        one.path,
                        one.frame_number,
                        f"{one.crc32:08x}",
                    )
                )


class _Frames:
    """Frames of exposures, read from their files one at a time."""

    def __init__(self, exposures: Sequence[Exposure]) -> None:
        self._exposures = exposures
        first = exposures[0].read()
        self.dtype: np.dtype[Any] = first.dtype
        self.shape = (len(exposures), *first.shape)

    def __getitem__(self, index: int, /) -> NDArray[np.uint16]:
        return self._exposures[index].read()


def _tilt_series(journal: Path) -> RunExposures:
    run = _with_exposures(journal)
    if "measurement" not in run.start:
        raise ValueError(
            f"run {journal.stem}: {run.start.get('plan_name')} is no tilt series, which this format is made for; "
            "export it as csv"
        )
    return run


_MARKS = {"dark": "BG_", "flat": "FF_", "primary": ""}


def _as_martapp(journal: Path, output: Path) -> None:
    """Write MARTApp's first stage; what the jaws spoiled, and returns to zero tilt, have no place in it."""
    run = _tilt_series(journal)
    if output.exists():
        raise FileExistsError(f"{output}: exists; name a new folder for the images")
    start = run.start
    sample = "".join(c for c in str(start["sample"]["name"]) if c.isalnum()) or "sample"
    kept = set(run.accepted().values())
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        temporary.mkdir()
        for one in run.in_order():
            helicity = 1 if one.stream == "dark" else one.key.helicity
            if one.stream != "dark" and one.polarization != helicity:
                continue
            if one.stream in ("primary", RETURN) and one not in kept:
                continue
            taken = datetime.fromtimestamp(one.time, UTC)
            counts_vu = one.read()
            height, width = counts_vu.shape
            header = ImageHeader(
                (height, width),
                counts_vu.dtype,
                one.theta_deg,
                one.exposure_s,
                one.ring_current_ma,
                energy_ev(start),
                float(helicity),
                float(start["pixel_nm"]),
                one.stream == "flat",
                {
                    "azimuth": float(start["phi_deg"]),
                    "date_time_acquisition": taken.replace(tzinfo=None).isoformat(),
                    "sample_name": str(start["sample"]["name"]),
                    "input_file": f"run {start['uid']} {one.stream} {one.seq_num}",
                },
            )
            mark = _MARKS[one.stream]
            number = one.key.repeat if one.stream == "primary" else one.seq_num - 1
            name = f"{taken:%Y%m%d}_{sample}_{helicity}_{one.key.theta_deg:.1f}_{mark}{number}.hdf5"
            write_image(temporary / name, header, counts_vu)
        temporary.rename(output)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _as_nxtomo(journal: Path, output: Path) -> None:
    run = _tilt_series(journal)
    start = run.start
    entries = {}
    for helicity, name in ((1, "positive"), (-1, "negative")):
        parts = (
            (DARK, run.stream("dark")),
            (FLAT, [one for one in run.stream("flat") if one.key.helicity == helicity]),
            (PROJECTION, [one for one in run.accepted().values() if one.key.helicity == helicity]),
        )
        exposures = [one for _, part in parts for one in part]
        if not exposures:
            continue
        entries[name] = TomoEntry(
            frames_tvu=_Frames(exposures),
            image_key=np.array(
                [_image_key(key, one, helicity) for key, part in parts for one in part]
            ),
            theta_deg=np.array([one.theta_deg for one in exposures]),
            exposure_s=np.array([one.exposure_s for one in exposures]),
            ring_current_ma=np.array([one.ring_current_ma for one in exposures]),
            pixel_nm=start["pixel_nm"],
            energy_ev=energy_ev(start),
            phi_deg=start["phi_deg"],
            helicity=helicity,
            time_s=np.array([one.time for one in exposures]),
            saturation_counts=start["saturation_counts"],
            sample_name=start["sample"]["name"],
            title=f"run {start['uid']}",
        )
    write_nxtomo(output, entries)


def _image_key(key: int, exposure: Exposure, helicity: int) -> int:
    """Mark as invalid what the jaws' positions say was of another helicity, or of none."""
    return key if key == DARK or exposure.polarization == helicity else INVALID


FORMATS: Mapping[str, Callable[[Path, Path], None]] = {
    "csv": _as_csv,
    "jsonl": _as_jsonl,
    "nxtomo": _as_nxtomo,
    "martapp": _as_martapp,
}
"""What `export_run` can write."""
