"""From frames to signal, magnetization and topology: arrays in, arrays out."""

from mistral_txm.reconstruction.exports import export_series, export_volume
from mistral_txm.reconstruction.files import FileError
from mistral_txm.reconstruction.martapp import (
    AlignedSeries,
    NormalizedStack,
    is_aligned,
    read_aligned,
    read_normalized,
    write_aligned,
)
from mistral_txm.reconstruction.topology import (
    UndefinedDirectionError,
    find_singularities,
    topology_summary,
)
from mistral_txm.reconstruction.volume_file import Volume, read_volume, write_volume

__all__ = [
    "AlignedSeries",
    "FileError",
    "NormalizedStack",
    "UndefinedDirectionError",
    "Volume",
    "export_series",
    "export_volume",
    "find_singularities",
    "read_aligned",
    "read_volume",
    "topology_summary",
    "write_aligned",
    "write_volume",
]
