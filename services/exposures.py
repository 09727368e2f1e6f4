"""The exposures of a run, told from its documents: which frame of which file belongs to which key."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistral_txm.devices.key import Key
from mistral_txm.services.frame_files import FrameError, frame_crc32, path_of, read_frames

STREAMS = ("dark", "flat", "primary")
"""Streams whose Events are exposures, where they carry keys."""


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

    def read(self) -> NDArray[np.uint16]:
        """Read the frame ``[v, u]`` from its file and compare its checksum.

        Raises
        ------
        FrameError
            If the frame is missing, or is not the one that was acknowledged.
        """
        frame_vu: NDArray[np.uint16] = read_frames(self.path, self.dataset, [self.frame_number])[0]
        frame_vu = frame_vu.reshape(frame_vu.shape[-2:])
        found = frame_crc32(frame_vu)
        if found != self.crc32:
            raise FrameError(
                f"{self.path}: frame {self.frame_number} has checksum {found:08x}, the journal says "
                f"{self.crc32:08x}: the file is damaged"
            )
        return frame_vu


class RunExposures:
    """Takes the documents of one run as they come and keeps its exposures.

    After a pause the RunEngine takes the interrupted exposure again under the same sequence number: the
    last Event of each counts. Documents that come twice change nothing.
    """

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.stop: dict[str, Any] | None = None
        self._streams: dict[str, str] = {}
        self._resources: dict[str, tuple[Path, str]] = {}
        self._frames: dict[tuple[str, int], tuple[Path, str]] = {}
        self._exposures: dict[tuple[str, int], Exposure] = {}

    @classmethod
    def of(cls, documents: Iterable[tuple[str, Mapping[str, Any]]]) -> "RunExposures":
        """Take all documents of a run at once."""
        run = cls()
        for name, doc in documents:
            run.add(name, doc)
        return run

    def add(self, name: str, doc: Mapping[str, Any]) -> Exposure | None:
        """Take one document; return the exposure that it completes, if it does."""
        match name:
            case "start":
                self.start = dict(doc)
            case "stop":
                self.stop = dict(doc)
            case "descriptor":
                if "key_phi_deg" in doc["data_keys"]:
                    self._streams[doc["uid"]] = doc["name"]
            case "stream_resource":
                self._resources[doc["uid"]] = (path_of(doc["uri"]), doc["parameters"]["dataset"])
            case "stream_datum":
                place = self._resources[doc["stream_resource"]]
                self._frames[doc["descriptor"], doc["seq_nums"]["start"]] = place
            case "event" if self._streams.get(doc["descriptor"]) in STREAMS:
                return self._exposure(doc)
        return None

    def in_order(self) -> list[Exposure]:
        """Return the exposures of all streams in the order in which they were recorded."""
        return list(self._exposures.values())

    def stream(self, name: str) -> list[Exposure]:
        """Return the exposures of a stream in the order of their sequence numbers."""
        return [
            exposure for (stream, _), exposure in sorted(self._exposures.items()) if stream == name
        ]

    def accepted(self) -> dict[Key, Exposure]:
        """Return the exposures of the primary stream by key; of repeated ones, the last."""
        return {exposure.key: exposure for exposure in self.stream("primary")}

    def _exposure(self, doc: Mapping[str, Any]) -> Exposure:
        data, seq_num = doc["data"], int(doc["seq_num"])
        stream = self._streams[doc["descriptor"]]
        path, dataset = self._frames[doc["descriptor"], seq_num]
        exposure = Exposure(
            run_uid=self.start["uid"],
            stream=stream,
            seq_num=seq_num,
            key=Key(
                float(data["key_phi_deg"]),
                float(data["key_theta_deg"]),
                int(data["key_helicity"]),
                int(data["key_repeat"]),
            ),
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
        )
        self._exposures[stream, seq_num] = exposure
        return exposure
