"""How the catalog's server reads a published volume: its arrays with named axes, nothing else of the file."""

from dataclasses import replace
from typing import Any

from tiled.adapters.hdf5 import HDF5_DATASET, HDF5Adapter, HDF5ArrayAdapter
from tiled.structures.data_source import DataSource


class VolumeAdapter(HDF5Adapter):  # type: ignore[misc]  # the base class is not typed
    """The arrays of a volume, as `volume_copies.describe` lists them.

    Tiled's own adapter, of a server that does not know this one, shows the whole file.
    """

    @classmethod
    def from_catalog(
        cls, data_source: DataSource[Any], node: Any, /, **parameters: Any
    ) -> "VolumeAdapter":
        """Make the reader of one volume."""
        (asset,) = data_source.assets
        tree = dict.fromkeys(data_source.properties["arrays"], HDF5_DATASET)
        return cls(
            tree,
            asset.data_uri,
            metadata=node.metadata_,
            specs=node.specs,
            **{**parameters, "dataset": None},
        )

    def metadata(self) -> Any:
        """Return what the catalog says of it."""
        return self._metadata

    def __getitem__(self, key: str) -> Any:
        array = super().__getitem__(key)
        if isinstance(array, HDF5ArrayAdapter):
            array._structure = replace(array._structure, dims=("z", "y", "x"))
        return array
