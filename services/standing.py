"""Which exposures of a series count: the rules that every reader shares.

Of one key counts the last exposure that was taken with the jaws at the helicity of the key, whose frame is usable, and
that was not rejected later. A key that nobody needs any more (an early stop that the operator allowed) is waived,
unless it was taken all the same. What is left is missing::

    accepted + waived + missing = manifest
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mistral_txm.devices.key import Key


class Taken(Protocol):
    """What the rules ask of an exposure; it must be hashable."""

    @property
    def key(self) -> Key:
        """Its name in the series."""

    @property
    def polarization(self) -> int:
        """Helicity derived from the jaws' positions; 0 where they stood at neither."""


TakenT = TypeVar("TakenT", bound=Taken)


@dataclass(frozen=True)
class Contribution(Generic[TakenT]):
    """What one run adds to its series, or takes back."""

    exposures: Sequence[TakenT] = ()
    """Of the sample, every one, in the order in which they were recorded."""
    waived: Collection[Key] = ()
    """Each stands for itself and all higher repeats."""
    rejected: Collection[Key] = ()
    """Exposures of these keys in earlier runs do not count."""


@dataclass(frozen=True)
class Standing(Generic[TakenT]):
    """How a series stands; each key of its manifest is in one of `accepted`, `waived` and `missing`."""

    accepted: Mapping[Key, TakenT]
    """The exposure that counts, by key; the one that was taken last comes last."""
    waived: tuple[Key, ...]
    missing: tuple[Key, ...]
    """In the order of the manifest."""
    rejected: tuple[Key, ...]
    """Those of the missing keys whose exposures were rejected."""
    unassigned: tuple[Key, ...]
    """Those of the missing keys that were exposed with the jaws elsewhere."""
    repeated: tuple[Key, ...]
    """Keys that were exposed again, once for each time."""

    @property
    def planned(self) -> int:
        """Keys that count as planned: the manifest without what is waived."""
        return len(self.accepted) + len(self.missing)


def standing(
    manifest: Sequence[Key],
    runs: Iterable[Contribution[TakenT]],
    unusable: Collection[TakenT] = frozenset(),
) -> Standing[TakenT]:
    """Merge the runs of a series by key.

    Parameters
    ----------
    manifest
        All keys that were planned, in their order.
    runs
        Oldest first.
    unusable
        Exposures whose frames are known to be damaged or lost.
    """
    planned = frozenset(manifest)
    accepted: dict[Key, TakenT] = {}
    waived_from: dict[tuple[Any, ...], int] = {}
    taken_back: set[Key] = set()
    elsewhere: set[Key] = set()
    seen: set[Key] = set()
    repeated: list[Key] = []
    for run in runs:
        for key in run.rejected:
            if accepted.pop(key, None) is not None:
                taken_back.add(key)
                waived_from.pop(key[:3], None)  # what made the others needless does not count
        for key in run.waived:
            first = waived_from.get(key[:3], key.repeat)
            waived_from[key[:3]] = min(first, key.repeat)
        for exposure in run.exposures:
            if exposure.key in seen:
                repeated.append(exposure.key)
            seen.add(exposure.key)
            if not assigned(exposure):
                elsewhere.add(exposure.key)
        usable = (one for one in run.exposures if one.key in planned and one not in unusable)
        for key, exposure in last_of_each(usable).items():
            accepted.pop(key, None)
            accepted[key] = exposure
    left = [key for key in manifest if key not in accepted]
    waived = {key for key in left if key.repeat >= waived_from.get(key[:3], key.repeat + 1)}
    missing = tuple(key for key in left if key not in waived)
    return Standing(
        accepted=accepted,
        waived=tuple(key for key in left if key in waived),
        missing=missing,
        rejected=tuple(key for key in missing if key in taken_back),
        unassigned=tuple(key for key in missing if key in elsewhere),
        repeated=tuple(repeated),
    )


def last_of_each(exposures: Iterable[TakenT]) -> dict[Key, TakenT]:
    """Return by key the last exposure with an assigned helicity; the one that was taken last comes last."""
    found: dict[Key, TakenT] = {}
    for exposure in exposures:
        if assigned(exposure):
            found.pop(exposure.key, None)
            found[exposure.key] = exposure
    return found


def assigned(exposure: Taken) -> bool:
    """Return whether the jaws stood at the helicity of the key; else the exposure is to be taken again."""
    return exposure.polarization == exposure.key.helicity


def planned_keys(start: Mapping[str, Any]) -> list[Key]:
    """Return the keys that a start document plans for its whole series, in order.

    >>> planned_keys({"planned_keys": [[0.0, -55.0, 1, 1]]})
    [Key(phi_deg=0.0, theta_deg=-55.0, helicity=1, repeat=0)]
    """
    counts: dict[tuple[float, float, int], int] = {}
    keys = []
    for phi_deg, theta_deg, helicity, repeats in start.get("planned_keys", ()):
        group = (float(phi_deg), float(theta_deg), int(helicity))
        first = counts.get(group, 0)
        counts[group] = first + int(repeats)
        keys += [Key(*group, repeat) for repeat in range(first, counts[group])]
    return keys


def rejected_keys(start: Mapping[str, Any]) -> tuple[Key, ...]:
    """Return the keys whose earlier exposures a run takes back.

    >>> rejected_keys({"plan_name": "reject", "rejected_keys": [[0, -55, 1, 3]]})
    (Key(phi_deg=0.0, theta_deg=-55.0, helicity=1, repeat=3),)
    """
    return tuple(
        Key(float(phi_deg), float(theta_deg), int(helicity), int(repeat))
        for phi_deg, theta_deg, helicity, repeat in start.get("rejected_keys", ())
        if is_rejection(start)
    )


def is_rejection(start: Mapping[str, Any]) -> bool:
    """Return whether a run takes nothing, but rejects what other runs of its series took."""
    return start.get("plan_name") == "reject"


def describe_key(key: Key) -> str:
    """Name a key for people.

    >>> describe_key(Key(90.0, -55.0, 1, 2))
    'phi 90 deg, theta -55 deg, helicity +1, repeat 3'
    """
    return (
        f"phi {key.phi_deg:g} deg, theta {key.theta_deg:g} deg, helicity {key.helicity:+d}, "
        f"repeat {key.repeat + 1}"
    )
