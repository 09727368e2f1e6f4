"""The exposures of a run, told from its documents: which frame of which file belongs to which key."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.devices.key import Key
from mistral_txm.services.frame_files import FrameError, frame_crc32, path_of, read_frames
from mistral_txm.services.standing import (
    Contribution,
    is_rejection,
    last_of_each,
    rejected_keys,
)

logger = logging.getLogger(__name__)

RETURN = "zero"
"""Stream of the sample at the return to zero tilt, which is no part of its series."""
STREAMS = ("dark", "flat", "primary", RETURN)
"""Streams whose Events are exposures, where they carry keys."""


class UnreadableExposure(FrameError):
    """The frame of an exposure is missing, or is not the one that was acknowledged."""

    def __init__(self, exposure: "Exposure", reason: str) -> None:
        super().__init__(reason)
        self.exposure = exposure


HOLDS = {"pause": "paused", "wait": "waits", "ask": "asks"}
"""How it is called that a run is held, by the kind of the line in its log."""


@dataclass(frozen=True)
class LogEntry:
    """One notable thing that happened in a run."""

    time: float
    """s since 1970-01-01 UTC."""
    kind: str
    """``note``, ``flag``, ``repeat``, ``go_on``, or one of `HOLDS`."""
    text: str
    """One line."""


@dataclass(frozen=True)
class Exposure:
    """One exposure: its key, its frame on disk and what was read with it."""

    run_uid: str
    stream: str
    seq_num: int
    key: Key
    theta_deg: float
    """Readback of the tilt, which the reconstruction uses."""
    polarization: int
    """Helicity derived from the jaws' positions; 0 where they stand at neither."""
    path: Path
    dataset: str
    frame_number: int
    crc32: int
    exposure_s: float
    ring_current_ma: float
    saturated_fraction: float
    time: float
    mean_counts: float | None = field(default=None, kw_only=True)
    """Mean of the frame; None where the run did not record it."""

    def read(self) -> NDArray[np.uint16]:
        """Read the frame ``[v, u]`` from its file and compare its checksum.

        Raises
        ------
        UnreadableExposure
            If the frame is missing, or is not the one that was acknowledged.
        """
        frame_vu: NDArray[np.uint16]
        try:
            frame_vu = read_frames(self.path, self.dataset, [self.frame_number])[0]
        except FrameError as error:
            raise UnreadableExposure(self, str(error)) from error
        frame_vu = frame_vu.reshape(frame_vu.shape[-2:])
        found = frame_crc32(frame_vu)
        if found != self.crc32:
            raise UnreadableExposure(
                self,
                f"{self.path}: frame {self.frame_number} has checksum {found:08x}, the journal says "
                f"{self.crc32:08x}: the file is damaged",
            )
        return frame_vu


class RunExposures:
    """Takes the documents of one run as they come and keeps its exposures, its log, and what it waives.

    After a pause the RunEngine takes the interrupted exposure again under the same sequence number: the
    last Event of each counts. Documents that come twice change nothing. An exposure that a damaged journal does not
    tell in full is none: it is missing in its series, and taken again; that is logged once.
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.stop: dict[str, Any] | None = None
        self._streams: dict[str, str] = {}
        self._resources: dict[str, tuple[Path, str]] = {}
        self._frames: dict[tuple[str, int], tuple[Path, str] | None] = {}
        self._exposures: dict[tuple[str, int], Exposure] = {}
        self._recorded: dict[Exposure, None] = {}
        self._log: dict[LogEntry, None] = {}
        self._waived: dict[Key, None] = {}
        self._is_damaged = False

    @classmethod
    def of(cls, documents: Iterable[tuple[str, Mapping[str, Any]]]) -> "RunExposures":
        """Take all documents of a run at once."""
        run = cls()
        for name, doc in documents:
            run.add(name, doc)
        return run

    def add(self, name: str, doc: Mapping[str, Any]) -> Exposure | None:
        """Take one document; return the exposure that it completes, if it does."""
        try:
            return self._take(name, doc)
        except (LookupError, TypeError, ValueError, FrameError) as damage:
            if not self._is_damaged:
                logger.error(
                    "run %s: its journal is damaged, what is told of a %s cannot be used (%s); an exposure that is not "
                    "told in full is missing, `resume` takes it again",
                    self.start.get("uid", "without a start"),
                    name,
                    damage,
                )
            self._is_damaged = True
            return None

    def _take(self, name: str, doc: Mapping[str, Any]) -> Exposure | None:
        match name:
            case "start":
                self.start = dict(doc)
            case "stop":
                self.stop = dict(doc)
            case "descriptor":
                if _COLUMN_OF.get(doc["name"], "key_phi_deg") in doc["data_keys"]:
                    self._streams[doc["uid"]] = doc["name"]
            case "stream_resource":
                self._resources[doc["uid"]] = (path_of(doc["uri"]), doc["parameters"]["dataset"])
            case "stream_datum":
                place = self._resources.get(doc["stream_resource"])
                self._frames[doc["descriptor"], doc["seq_nums"]["start"]] = place
            case "event" if doc["descriptor"] in self._streams:
                return self._event(self._streams[doc["descriptor"]], doc)
        return None

    @property
    def is_rejection(self) -> bool:
        """Whether it takes nothing, but rejects what other runs of its series took."""
        return is_rejection(self.start)

    @property
    def log(self) -> list[LogEntry]:
        """What was notable, in the order in which it was recorded."""
        return list(self._log)

    def contribution(self) -> Contribution[Exposure]:
        """Return what the run adds to its series, or takes back."""
        return Contribution(
            exposures=[one for one in self.recorded() if one.stream == "primary"],
            waived=list(self._waived),
            rejected=rejected_keys(self.start),
        )

    def recorded(self) -> list[Exposure]:
        """Return every exposure of all streams in the order of recording, also those taken again after a pause."""
        return list(self._recorded)

    def in_order(self) -> list[Exposure]:
        """Return the exposures of all streams in the order in which they were recorded."""
        return list(self._exposures.values())

    def stream(self, name: str) -> list[Exposure]:
        """Return the exposures of a stream in the order of their sequence numbers."""
        return [
            exposure for (stream, _), exposure in sorted(self._exposures.items()) if stream == name
        ]

    def accepted(self) -> dict[Key, Exposure]:
        """Return the exposures of the primary stream by key; of repeated ones, the last that counts."""
        return last_of_each(self.contribution().exposures)

    def _event(self, stream: str, doc: Mapping[str, Any]) -> Exposure | None:
        if stream in STREAMS:
            return self._exposure(stream, doc)
        data = doc["data"]
        if stream == "log":
            kind, text = str(data["log_kind"]), str(data["log_text"])
            self._log[LogEntry(float(doc["time"]), kind, text)] = None
        elif stream == "waived":
            self._waived[_key(data, "waived")] = None
        return None

    def _exposure(self, stream: str, doc: Mapping[str, Any]) -> Exposure:
        data, seq_num = doc["data"], int(doc["seq_num"])
        place = self._frames.get((doc["descriptor"], seq_num))
        if place is None:
            raise LookupError(f"{stream} {seq_num}: the file of its frame is not known")
        path, dataset = place
        exposure = Exposure(
            run_uid=self.start["uid"],
            stream=stream,
            seq_num=seq_num,
            key=_key(data, "key"),
            theta_deg=float(data["theta"]),
            polarization=int(data["polarization"]),
            path=path,
            dataset=dataset,
            frame_number=int(data["ccd_frame_number"]),
            crc32=int(data["ccd_frame_crc32"]),
            exposure_s=float(data["ccd_exposure_s"]),
            ring_current_ma=float(data["ring_current"]),
            saturated_fraction=float(data["ccd_saturated_fraction"]),
            time=float(doc["time"]),
            mean_counts=_number(data.get("ccd_mean_counts")),
        )
        self._exposures[stream, seq_num] = exposure
        self._recorded[exposure] = None
        return exposure


_COLUMN_OF = {"log": "log_text", "waived": "waived_phi_deg"}
"""Columns by which the streams are known that have Events without exposures."""


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _key(data: Mapping[str, Any], prefix: str) -> Key:
    return Key(
        float(data[f"{prefix}_phi_deg"]),
        float(data[f"{prefix}_theta_deg"]),
        int(data[f"{prefix}_helicity"]),
        int(data[f"{prefix}_repeat"]),
    )
