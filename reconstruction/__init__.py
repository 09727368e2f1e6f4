"""From frames to signal, magnetization and topology: arrays in, arrays out."""

from mistral_txm.reconstruction.exports import export_series, export_volume
from mistral_txm.reconstruction.files import FileError
from mistral_txm.reconstruction.geometry import (
    Grid,
    InputError,
    beam_direction,
    detector_basis,
)
from mistral_txm.reconstruction.likelihood import JointReconstruction, reconstruct_counts
from mistral_txm.reconstruction.likelihood_series import CountSeries
from mistral_txm.reconstruction.martapp import (
    AlignedSeries,
    NormalizedStack,
    is_aligned,
    read_aligned,
    read_normalized,
    write_aligned,
)
from mistral_txm.reconstruction.reconstruct import (
    Absorption,
    Reconstruction,
    reconstruct,
    reconstruct_absorption,
)
from mistral_txm.reconstruction.tilt_series import TiltSeries
from mistral_txm.reconstruction.topology import (
    UndefinedDirectionError,
    find_singularities,
    topology_summary,
)
from mistral_txm.reconstruction.volume_file import (
    Volume,
    input_file,
    read_volume,
    volume_of,
    write_volume,
)

__all__ = [
    "Absorption",
    "AlignedSeries",
    "CountSeries",
    "FileError",
    "Grid",
    "InputError",
    "JointReconstruction",
    "NormalizedStack",
    "Reconstruction",
    "TiltSeries",
    "UndefinedDirectionError",
    "Volume",
    "beam_direction",
    "detector_basis",
    "export_series",
    "export_volume",
    "find_singularities",
    "input_file",
    "is_aligned",
    "read_aligned",
    "read_normalized",
    "read_volume",
    "reconstruct",
    "reconstruct_absorption",
    "reconstruct_counts",
    "topology_summary",
    "volume_of",
    "write_aligned",
    "write_volume",
]
