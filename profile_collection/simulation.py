"""What a simulated beamline is started with, checked before anything starts and kept with the run."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Simulation:
    """Frames, sample, seed, pace and conditions of a simulated beamline.

    `size` is ``small``, ``medium`` or ``paper``; `texture` a packaged name or the path of an HDF5
    file; `conditions` a packaged name or the path of a TOML file; `time_scale` how long an
    exposure of one second takes, s.
    """

    size: str
    texture: str
    seed: int
    conditions: str
    time_scale: float

    def options(self) -> list[str]:
        """Return it as options of the simulated beamline's process."""
        return [
            word
            for name, value in asdict(self).items()
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]

    def metadata(self) -> dict[str, object]:
        """Return what the documents of a run say, so that a series is resumed in the same simulation."""
        return asdict(self)


def usable_conditions(conditions: str | Path) -> str:
    """Return a packaged name as it is, the path of a file as an absolute one.

    Raises
    ------
    ConfigurationError
        If there is no such name or file, or something in it is wrong: one line.
    """
    from mistral_txm.simulated_beamline.settings import load_settings, names

    load_settings(conditions)
    return str(conditions) if str(conditions) in names() else str(Path(conditions).resolve())


def usable_texture(texture: str | Path, data: Path) -> str:
    """Return a packaged name as it is, the path of an HDF5 file as an absolute one.

    An OVF file is converted: the simulated beamline reads HDF5, with a reader of its own. A
    magnetization in A/m is divided by its largest norm. The copy in the data folder is named after
    the file and its content, so that a series that is resumed finds it.

    Raises
    ------
    ValueError
        If there is no such name or file, or it holds no vector field: one line.
    """
    from mistral_txm.simulated_beamline.textures import load, names

    path = Path(texture).resolve()
    if str(texture) in names() or not path.suffix:
        load(str(texture))
        return str(texture)
    if not path.is_file():
        raise ValueError(f"texture {str(texture)!r}: no such file")
    # What reads volumes takes long to import, and a packaged texture needs none of it.
    import numpy as np

    from mistral_txm.reconstruction import ovf, volume_file
    from mistral_txm.reconstruction.files import sha256_of

    if ovf.is_ovf(path):
        copy = data.resolve() / "textures" / f"{path.stem}-{sha256_of(path)[:8]}.h5"
        volume = volume_file.read_volume(path)
        if ovf.read_ovf(path).unit == "A/m":
            largest = np.linalg.norm(volume.m_czyx, axis=0).max() or 1.0
            mx, my, mz = volume.m_czyx / largest
            volume = replace(volume, mx=mx, my=my, mz=mz)
        copy.parent.mkdir(parents=True, exist_ok=True)
        volume_file.write_volume(copy, volume)
        path = copy
    load(str(path))
    return str(path)


def usable_faults(faults: Iterable[str]) -> tuple[str, ...]:
    """Return faults as they were written, ``NAME`` or ``NAME=VALUE``.

    Raises
    ------
    ValueError
        For one that is unknown, or a value that its kind does not have.
    """
    from mistral_txm.simulated_beamline.faults import parse

    faults = tuple(faults)
    for fault in faults:
        parse(fault)
    return faults


def fault_table() -> list[tuple[str, str, str]]:
    """Return name, kind or unit, and meaning of every fault, those of all motors once."""
    from mistral_txm.simulated_beamline.faults import FAULTS, MOTORS

    rows = {
        name.replace(f"{MOTORS[0]}.", "MOTOR."): fault
        for name, fault in FAULTS.items()
        if "." not in name or name.startswith(f"{MOTORS[0]}.")
    }
    return [(name, fault.unit or fault.kind, fault.meaning) for name, fault in rows.items()]
