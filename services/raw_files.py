"""Files of the facility, of any kind, to the signals of their angles."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mistral_txm.reconstruction.files import FileError
from mistral_txm.services.angle_signals import AngleSignals
from mistral_txm.services.frame_files import FrameError
from mistral_txm.services.normalized_files import normalized_signals
from mistral_txm.services.raw_frames import Kind, RawFrame, frames_in, kind_of
from mistral_txm.services.raw_series import series_of, signals_of

SUFFIXES = frozenset({".xrm", ".txrm", ".h5", ".hdf5", ".hdf", ".nx", ".nxs"})
"""Of the files of a folder that are read."""


_NO_AZIMUTH = (
    "{} folders of files that do not say their azimuth; give --phi for each, in order (deg)"
)


@dataclass(frozen=True)
class RawInput:
    """What files of the facility may not say: a person does.

    ``phi_deg``: azimuth of each file or folder, in order, or one for all; empty: as the files say, and 0 where they
    do not and are of one azimuth. ``ring_current_ma``: of images without one. ``surfaces_nm``: lower and upper surface
    on which gold spheres lie, from the middle of the film.
    """

    phi_deg: tuple[float, ...] = ()
    ring_current_ma: float | None = None
    surfaces_nm: tuple[float, float] | None = None


def is_aligned_file(path: Path) -> bool:
    """Return whether a path is a file of aligned stacks, which need no processing."""
    return not path.is_dir() and kind_of(path) is Kind.ALIGNED


def raw_signals(
    paths: Sequence[Path], given: RawInput
) -> tuple[list[AngleSignals], float, tuple[str, ...]]:
    """Return the signals of all angles in the files, the pixel, nm, and a line for each that was left out.

    Raises
    ------
    ValueError
        If files or images cannot be read, contradict each other or say too little; one line.
    """
    files = _files_with_azimuth(paths, given.phi_deg)
    kinds = {path: kind_of(path) for path, _ in files}
    if len(set(kinds.values())) > 1:
        (usual, _), *_ = Counter(kinds.values()).most_common()
        other = next(path for path, kind in kinds.items() if kind is not usual)
        raise FileError(
            f"{other}: holds {kinds[other].value}, other files {usual.value}; process each kind by itself"
        )
    kind = next(iter(kinds.values()))
    if kind is Kind.ALIGNED:
        raise FileError(
            f"{files[0][0]} and {len(files) - 1} more hold aligned stacks; they need no processing: reconstruct them"
        )
    several = not given.phi_deg and sum(path.is_dir() for path in paths) > 1
    if kind is Kind.NORMALIZED:
        if several:
            raise FileError(_NO_AZIMUTH.format(len(paths)))
        return _of_normalized(files)
    frames: list[RawFrame] = []
    for path, phi_deg in files:
        found = frames_in(path, kind)
        frames += found if phi_deg is None else [replace(one, phi_deg=phi_deg) for one in found]
    if several and any(one.phi_deg is None for one in frames):
        raise FileError(_NO_AZIMUTH.format(len(paths)))
    series = series_of(frames, given.ring_current_ma)
    try:
        made, notes = signals_of(series)
    except FrameError as problem:
        raise FileError(str(problem)) from problem
    return made, series.pixel_nm, (*series.notes, *notes)


def _of_normalized(
    files: Sequence[tuple[Path, float | None]],
) -> tuple[list[AngleSignals], float, tuple[str, ...]]:
    by_azimuth: dict[float, list[Path]] = {}
    for path, phi_deg in files:
        by_azimuth.setdefault(phi_deg or 0.0, []).append(path)
    made: list[AngleSignals] = []
    notes: list[str] = []
    pixels_nm: list[float] = []
    for phi_deg, of_it in by_azimuth.items():
        signals, pixel_nm, left_out = normalized_signals(of_it, phi_deg)
        made += signals
        notes += left_out
        pixels_nm.append(pixel_nm)
    if max(pixels_nm) - min(pixels_nm) > 1e-3 * pixels_nm[0]:
        raise FileError(f"{files[0][0]}: pixels of {pixels_nm} nm; expected one for all azimuths")
    return made, pixels_nm[0], tuple(notes)


def _files_with_azimuth(
    paths: Sequence[Path], phis_deg: Sequence[float]
) -> list[tuple[Path, float | None]]:
    """Open folders, and give each file the azimuth that a person stated for it, if one did."""
    if len(phis_deg) not in (0, 1, len(paths)):
        raise FileError(
            f"{len(phis_deg)} azimuths for {len(paths)} files or folders; give one --phi for all, or one for each, in "
            "order"
        )
    files: list[tuple[Path, float | None]] = []
    for number, path in enumerate(paths):
        phi_deg = phis_deg[number % len(phis_deg)] if phis_deg else None
        if path.is_dir():
            found = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
            if not found:
                raise FileError(
                    f"{path}: no file ends with {', '.join(sorted(SUFFIXES))}; expected images"
                )
            files += [(one, phi_deg) for one in found]
        else:
            files.append((path, phi_deg))
    return files
