"""A series as labelled arrays, merged over its runs, from any catalog that holds them.

The frames stay where they are until they are computed: `series_arrays` reads the tables of the runs alone. Which
exposure of a key counts is decided as everywhere else (`standing`), but for damaged frames: they are not known before
they are read, and refused then.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mistral_txm.services.catalog_frames import (
    CatalogFrames,
    Row,
    SeriesError,
    streams_of,
    waived_keys,
)
from mistral_txm.services.catalog_search import find
from mistral_txm.services.runs import energy_ev
from mistral_txm.services.standing import (
    Contribution,
    assigned,
    planned_keys,
    rejected_keys,
    standing,
)


def series_arrays(cat: Any, series: str) -> xr.Dataset:
    """Return a series as one data set with lazy frames.

    ``frames[phi, theta, helicity, repeat, y, x]`` are counts. The coordinates ``phi``, ``theta`` (deg), ``helicity``
    and ``repeat`` are those of the plan; they span a grid, of which ``planned`` says what was planned, ``waived`` what
    nobody needs any more, and ``taken`` what is there. Where ``taken`` is false, the frame is zero and all that was
    read with it not-a-number, not-a-time, 0 or empty.

    ``flats[phi, helicity, flat, y, x]`` and ``darks[phi, dark_exposure_s, dark, y, x]`` are those of all runs in the
    order of time, numbered from 0 for each helicity and each exposure time. What was read with them has the same names
    with ``flat_`` and ``dark_`` before.

    Parameters
    ----------
    cat
        Catalog, as `catalog_search.find` takes it.
    series
        Uid of the series, or its first characters.

    Raises
    ------
    SeriesError
        If there is none, or more than one, or its frames do not fit together.
    FrameError
        From ``.compute()``, if a frame cannot be read, or is not the one that was acknowledged.
    """
    runs = _runs(cat, series)
    starts = [run.metadata["start"] for run in runs]
    frames = CatalogFrames()
    streams = [streams_of(run) for run in runs]
    rows = [
        frames.rows_of(start["uid"], of_run) for start, of_run in zip(starts, streams, strict=True)
    ]
    manifest = next((keys for start in reversed(starts) if (keys := planned_keys(start))), [])
    stands = standing(
        manifest,
        [
            Contribution(
                exposures=[row for row in of_run if row.stream == "primary"],
                waived=waived_keys(names),
                rejected=rejected_keys(start),
            )
            for names, start, of_run in zip(streams, starts, rows, strict=True)
        ],
    )
    lit = [row for of_run in rows for row in of_run if row.stream == "flat" and assigned(row)]
    flats = _numbered((row.key.phi_deg, row.key.helicity, row) for row in lit)
    unlit = [row for of_run in rows for row in of_run if row.stream == "dark"]
    darks = _numbered((row.key.phi_deg, round(row.exposure_s, 6), row) for row in unlit)
    phi_deg = sorted({key[0] for key in (*manifest, *flats, *darks)})
    repeats = max((key.repeat for key in manifest), default=-1) + 1
    axes: dict[str, Sequence[Any]] = {
        "phi": phi_deg,
        "theta": sorted({key.theta_deg for key in manifest}),
        "helicity": (1, -1),
        "repeat": range(repeats),
    }
    flat_axes = {"phi": phi_deg, "helicity": (1, -1), "flat": _numbers(flats)}
    dark_times_s = sorted({key[1] for key in darks})
    dark_axes = {"phi": phi_deg, "dark_exposure_s": dark_times_s, "dark": _numbers(darks)}
    described = next((start for start in reversed(starts) if "sample" in start), starts[-1])
    stated = {
        row.key.phi_deg: start["phi_deg"]
        for start, of in zip(starts, rows, strict=True)
        for row in of
    }
    found = xr.Dataset(
        {
            "planned": (tuple(axes), _flags(axes, manifest)),
            "waived": (tuple(axes), _flags(axes, stands.waived)),
            **_variables(axes, stands.accepted, frames, "frames", ""),
            **_variables(flat_axes, flats, frames, "flats", "flat_"),
            **_variables(dark_axes, darks, frames, "darks", "dark_"),
            "stated_phi": ("phi", [stated.get(phi, np.nan) for phi in phi_deg], {"units": "deg"}),
        },
        coords={name: list(values) for name, values in {**axes, **flat_axes, **dark_axes}.items()},
        attrs={
            "series": described["series"],
            "sample": described["sample"]["name"] if "sample" in described else "",
            "energy_ev": energy_ev(described),
            "pixel_nm": described.get("pixel_nm"),
            "runs": [start["uid"] for start in starts],
        },
    )
    for name in ("phi", "theta"):
        found[name].attrs["units"] = "deg"
    return found


def _runs(cat: Any, series: str) -> list[Any]:
    """Return the runs of a series, the oldest first."""
    runs = list(find(cat, series=series).sort(("start.time", 1)).values())
    names = {run.metadata["start"]["series"] for run in runs}
    if series in names:
        return [run for run in runs if run.metadata["start"]["series"] == series]
    if len(names) != 1:
        known = f" ({', '.join(sorted(names))})" if names else ""
        raise SeriesError(
            f"series {series}: {len(names) or 'no'} such series in the catalog{known}"
        )
    return runs


def _numbered(grouped: Any) -> dict[tuple[Any, ...], Row]:
    """Number the rows of each group in the order of time."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for *group, row in grouped:
        groups.setdefault(tuple(group), []).append(row)
    return {
        (*group, number): row
        for group, rows in groups.items()
        for number, row in enumerate(sorted(rows, key=lambda one: one.time))
    }


def _numbers(placed: Collection[tuple[Any, ...]]) -> range:
    return range(max((place[-1] for place in placed), default=-1) + 1)


def _places(
    axes: Mapping[str, Sequence[Any]], keys: Collection[tuple[Any, ...]]
) -> list[tuple[int, ...]]:
    """Return the indices of keys on a grid."""
    numbers = [{value: number for number, value in enumerate(values)} for values in axes.values()]
    return [
        tuple(of_axis[part] for of_axis, part in zip(numbers, key, strict=True)) for key in keys
    ]


def _flags(
    axes: Mapping[str, Sequence[Any]], keys: Collection[tuple[Any, ...]]
) -> NDArray[np.bool_]:
    flags = np.zeros([len(values) for values in axes.values()], bool)
    for place in _places(axes, keys):
        flags[place] = True
    return flags


def _variables(
    axes: Mapping[str, Sequence[Any]],
    placed: Mapping[Any, Row],
    frames: CatalogFrames,
    name: str,
    prefix: str,
) -> dict[str, Any]:
    """Make the variables of exposures on a grid: their frames, and what was read with them."""
    dims = tuple(axes)
    rows, places = list(placed.values()), _places(axes, placed)
    number = np.full([len(values) for values in axes.values()], -1)
    for position, place in enumerate(places):
        number[place] = position

    def column(values: Sequence[Any], nothing: Any, dtype: str) -> NDArray[Any]:
        made = np.full(number.shape, nothing, dtype=dtype)
        for place, value in zip(places, values, strict=True):
            made[place] = value
        return made

    times = [np.datetime64(round(row.time * 1e9), "ns") for row in rows]
    made = {
        name: ((*dims, "y", "x"), frames.lazy(rows, number), {"units": "counts"}),
        f"{prefix}taken": (dims, number >= 0),
        f"{prefix}theta_readback": (
            dims,
            column([row.theta_deg for row in rows], np.nan, "f8"),
            {"units": "deg"},
        ),
        f"{prefix}exposure_s": (dims, column([row.exposure_s for row in rows], np.nan, "f8")),
        f"{prefix}ring_current_mA": (
            dims,
            column([row.ring_current_ma for row in rows], np.nan, "f8"),
        ),
        f"{prefix}frame_crc32": (dims, column([row.crc32 for row in rows], 0, "u4")),
        f"{prefix}time": (dims, column(times, np.datetime64("NaT"), "M8[ns]")),
        f"{prefix}run": (dims, column([row.run_uid for row in rows], "", "U36")),
    }
    return {
        label: made[label] for label in made if label not in axes
    }  # the time of darks is an axis
