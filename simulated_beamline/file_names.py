"""How a file of the plug-in gets its name: the records of NDFile.template about it."""

import re
from contextlib import suppress
from pathlib import Path

from mistral_txm.simulated_beamline.area_detector import NO_YES, add_constants
from mistral_txm.simulated_beamline.channels import (
    Database,
    integer,
    long_string,
    menu,
    post,
    string,
    with_readback,
)


def format_file_name(template: str, folder: str, name: str, number: int) -> str:
    """Return the file name as areaDetector's epicsSnprintf makes it from FileTemplate.

    The template takes path, name and number in this order, and may leave out the last ones.

    >>> format_file_name("%s%s_%6.6d.h5", "/data/", "frames", 7)
    '/data/frames_000007.h5'
    >>> format_file_name("%s%s.h5", "/data/", "frames", 7)
    '/data/frames.h5'

    Raises ValueError for a template that does not begin with two %s.
    """
    conversions = re.findall(r"%[-+ 0#]*\d*(?:\.\d+)?([a-zA-Z%])", template)
    kinds = "".join(kind for kind in conversions if kind != "%")
    if kinds not in ("ss", "ssd"):
        raise ValueError(f"FileTemplate {template!r}: expected %s%s or %s%s..%d in this order")
    values: tuple[object, ...] = (folder, name, number)
    return template % values[: len(kinds)]


def may_create(folder: Path, create_directory: int) -> bool:
    """Tell whether CreateDirectory allows to make what lacks of a folder.

    0: nothing; -n: at most n folders; n: any, if n folders of the path are there.

    >>> may_create(Path("/nowhere/1/2"), -2), may_create(Path("/nowhere/1/2"), -3)
    (False, True)
    >>> may_create(Path("/nowhere/1/2"), 1), may_create(Path("/nowhere/1/2"), 2)
    (True, False)
    """
    missing = sum(not part.exists() for part in (folder, *folder.parents))
    there = len(folder.parts) - missing
    if not folder.is_absolute() or create_directory == 0:
        return False
    return missing <= -create_directory if create_directory < 0 else there >= create_directory


class FileNames:
    """Makes the name of the next file from FilePath, FileName, FileNumber and FileTemplate."""

    def __init__(self, database: Database, prefix: str) -> None:
        self._path = with_readback(database, f"{prefix}FilePath", long_string)
        self._path.on_put = self._path_put
        self._path_readback = database[f"{prefix}FilePath_RBV"]
        self._name = with_readback(database, f"{prefix}FileName", long_string)
        self._template = with_readback(
            database, f"{prefix}FileTemplate", long_string, "%s%s_%6.6d.h5"
        )
        self._number = with_readback(database, f"{prefix}FileNumber", integer)
        self._number_readback = database[f"{prefix}FileNumber_RBV"]
        self._auto_increment = with_readback(database, f"{prefix}AutoIncrement", menu, NO_YES, 1)
        self._create_directory = with_readback(database, f"{prefix}CreateDirectory", integer)
        self._suffix = with_readback(database, f"{prefix}TempSuffix", string)
        self._path_exists = menu(NO_YES)
        self._full_name = long_string()
        add_constants(
            database,
            prefix,
            {"FilePathExists_RBV": self._path_exists, "FullFileName_RBV": self._full_name},
        )

    @property
    def folder(self) -> Path:
        """Where files go."""
        return Path(str(self._path.value))

    @property
    def temporary_suffix(self) -> str:
        """What a file's name ends with until it is closed."""
        return str(self._suffix.value)

    @property
    def last(self) -> str:
        """The full name that was made last."""
        return str(self._full_name.value)

    async def clear(self) -> None:
        """Forget the last full name."""
        await post(self._full_name, "")

    async def next(self) -> Path:
        """Make the next full name; counts the file number on where AutoIncrement says so.

        Raises
        ------
        ValueError
            If the template is not one.
        """
        number = int(self._number_readback.value)
        full_name = format_file_name(
            str(self._template.value), str(self._path.value), str(self._name.value), number
        )
        await post(self._full_name, full_name)
        if self._auto_increment.value == "Yes":
            await post(self._number, number + 1)
            await post(self._number_readback, number + 1)
        return Path(full_name)

    async def _path_put(self, value: str) -> None:
        """Add the trailing slash, create folders as CreateDirectory allows, look for the path."""
        path = value if value.endswith("/") else f"{value}/"
        folder = Path(path)
        if not folder.is_dir() and may_create(folder, int(self._create_directory.value)):
            with suppress(OSError):  # FilePathExists_RBV tells
                folder.mkdir(parents=True, exist_ok=True)
        await post(self._path_exists, int(folder.is_dir()))
        await post(self._path, path)
        await post(self._path_readback, path)
