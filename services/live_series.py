"""One series of the live reconstruction: from its finished angles to the volume and the status that it publishes."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mistral_txm.devices.advice_file import ADVICE
from mistral_txm.devices.key import Key
from mistral_txm.reconstruction import write_volume
from mistral_txm.services.aligned_views import AlignedViews, SeriesAlignment
from mistral_txm.services.angle_signals import AngleSignals, needed_for_volume
from mistral_txm.services.exposures import Exposure
from mistral_txm.services.film_height import surfaces_of
from mistral_txm.services.findings import summary
from mistral_txm.services.live_advice import Advisor
from mistral_txm.services.live_exposures import ExposureWatch
from mistral_txm.services.live_failures import Failures
from mistral_txm.services.live_files import (
    PAIR,
    STATUS,
    VOLUME,
    FrameExamples,
    read_status,
    write_pair,
    write_status,
)
from mistral_txm.services.live_flags import Flag, QualityWatch
from mistral_txm.services.live_history import History
from mistral_txm.services.live_views import SeenView, drifts_of, entries
from mistral_txm.services.live_volumes import METHOD, MadeVolume, NextView, VolumeMaker
from mistral_txm.services.made_of import MadeOf
from mistral_txm.services.processing import Processor
from mistral_txm.services.return_watch import ReturnWatch
from mistral_txm.services.series_exposures import Angle, SeriesExposures
from mistral_txm.services.standing import Standing, describe_key
from mistral_txm.services.truth import singularities_in_layers

RETRY_S = 5.0
"""Time after which something that failed is tried again, s."""
TOLD_S = 5.0
"""Where many angles are read, so often it is told how far it is, s."""
STAYS = "residual", "resolution_nm", "singularities", "views", "alignment"
"""What was published stays in the status of a new process until that has made it again, as the volume does."""


@dataclass(frozen=True)
class _Failure:
    """What failed, why, and when."""

    of: Angle | None
    message: str
    at_s: float


class LiveSeries:
    """One series: takes its documents, and brings signals, volume and status up to what has come.

    Parameters
    ----------
    folder
        Where it publishes; made if missing, with the first update.
    start
        Start document of the first of its runs that was seen.
    afresh
        Whether to make it again where it was complete before.
    """

    def __init__(self, folder: Path, start: Mapping[str, Any], *, afresh: bool = False) -> None:
        self._folder = folder
        self._exposures = SeriesExposures(start)
        self._pixel_nm = float(start["pixel_nm"])
        self._layers_nm = tuple(
            (float(low), float(high)) for low, high in start["sample"].get("layers_nm") or ()
        )
        surfaces_nm = surfaces_of(start["sample"])
        self._volumes = VolumeMaker(self._pixel_nm, self._layers_nm, surfaces_nm)
        self._processor = Processor(float(start["saturation_counts"]), self._pixel_nm)
        self._exposure_watch = ExposureWatch(self._processor)
        self._return_watch = ReturnWatch(self._exposures, self._processor, self._pixel_nm)
        self._seen: dict[tuple[float, float], SeenView] = {}
        self._failures: dict[tuple[float, float], _Failure] = {}
        self._newest: tuple[float, float] | None = None
        self._pair: AngleSignals | None = None
        self._not_published: _Failure | None = None
        self._troubles = Failures()
        self._alignment: SeriesAlignment | None = None
        self._laid: list[AlignedViews] = []
        self._looked_again_s = time.monotonic()
        published = {} if afresh else _published(folder)
        self._history = History(published)
        self._watch = QualityWatch(self._pixel_nm, self._layers_nm)
        self._flags: list[Flag] = []
        self._judged_until: float | None = None
        stop = start.get("measurement", {}).get("stop", {})
        self._advisor = Advisor(self._pixel_nm, self._layers_nm, stop.get("resolution_nm"))
        self._latest_at = time.time()
        self._made_of = MadeOf.complete(published, folder)
        self._status: dict[str, Any] = {
            "series": self._exposures.uid,
            "state": "waiting",
            "phi_deg": None,
            "theta_deg": None,
            "angles_done": 0,
            "angles_planned": self._exposures.angles_planned,
            "frames_seen": 0,
            "frames_planned": self._exposures.planned,
            "updates": 0,
            "update_s": None,
            "latency_s": None,
            "lag_frames": 0,
            "method": METHOD,
            "prior": "layers" if self._layers_nm else "none",
            "provisional": False,
            "residual": None,
            "alignment": None,
            "exposures": summary([]),
            "resolution_nm": None,
            "singularities": [],
            "newest_exposures": [],
            "returns": [],
            "views": [],
            "history": self._history.entries,
            "flags": [],
            "advice": self._advisor.advice,
            "message": "waiting for the first angle",
            "runs": {},
            "rejections": 0,
        }
        self._status |= {name: published[name] for name in STAYS if published.get(name)}

    def add(self, run_uid: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""
        self._exposures.add(run_uid, name, doc)

    def update(self) -> None:
        """Make signals of the angles that have finished, solve, and publish; at once if there is none.

        An angle whose frames cannot be used is left out, said in the status, and tried again later; one that was
        rejected is forgotten until it is there again. A series that was complete before this process began, or was
        forgotten, is left alone until there is more of it.

        Raises
        ------
        FileError, OSError
            If what is known cannot be written; nothing is lost by it.
        """
        begin_s = time.monotonic()
        if self._made_of is not None and self._made_of.covers(MadeOf.all_of(self._exposures)):
            return
        self._made_of = None
        self._folder.mkdir(parents=True, exist_ok=True)
        if begin_s - self._looked_again_s >= RETRY_S:
            self._exposures.look_again()
            self._looked_again_s = begin_s
        finished = self._exposures.finished()
        fresh = self._forget(finished)
        fresh |= self._make_signals(finished)
        failed = self._not_published
        all_there = len(finished) == self._exposures.angles_planned
        # what was missing may have been waived: nothing is new then, but all views are laid together
        unsettled = all_there and bool(self._alignment and self._alignment.provisional_views)
        if fresh or (_again(failed) if failed else unsettled):
            self._not_published = self._publish(begin_s)
            if self._not_published is None:
                self._judge()
        newest = self._exposures.newest()
        if newest is not None:
            self._exposure_watch.prepare(newest)
            self._exposure_watch.look(newest)
        self._return_watch.look(self._seen)
        self._tell(all_there=all_there)
        self._advise()

    def _tell(self, *, all_there: bool = False, reading: int = 0) -> None:
        """Write what is known now for people; that all is there once all is said.

        `reading`: how many angles are to be read, while that is not done.
        """
        used = sum(
            len(repeats) for one in self._seen.values() for repeats in one.angle.exposures.values()
        )
        stands = self._exposures.standing()
        self._status.update(
            asdict(MadeOf.all_of(self._exposures)),
            frames_seen=len(stands.accepted),
            frames_planned=stands.planned,
            lag_frames=len(stands.accepted) - used,
            angles_done=len(self._seen),
            angles_planned=self._exposures.angles_planned,
            exposures=summary(one.signals for one in self._seen.values()),
            newest_exposures=self._exposure_watch.entries,
            returns=self._return_watch.entries,
            flags=[asdict(flag) for flag in (*self._flags, *self._return_watch.flags())],
        )
        state = self._state(stands, all_there=all_there)
        if reading:
            message = f"catching up: {len(self._seen)} of {reading} angles read"
            state = {"state": "following", "message": message}
        self._status.update(state)
        write_status(self._folder / STATUS, self._status | {"updated_at": time.time()})

    def _advise(self) -> None:
        """Write for plans what was judged, and up to which exposure; never while views are read or solved.

        A plan would take advice that does not know the newest views yet, or none of them after a restart, for one
        that finds nothing wrong with them.
        """
        judged = [] if self._judged_until is None else [self._judged_until]
        if self._not_published is None:  # the returns are looked at after the views
            judged += [one["time"] for one in self._return_watch.entries]
        advice = {
            "flags": self._status["flags"],
            "resolution_nm": self._status["resolution_nm"],
            "reached": self._status["advice"]["reached"],
            "updated_at": time.time(),
            "judged_until": max(judged, default=None),
        }
        write_status(self._folder / ADVICE, advice)

    @property
    def is_over(self) -> bool:
        """Whether it is complete, and its runs have ended."""
        ended = MadeOf.all_of(self._exposures).has_ended
        return self._status["state"] == "complete" and ended

    def make_room(self) -> None:
        """Forget all but what is published; if more of the series comes the rest is made again."""
        self._made_of = MadeOf.all_of(self._exposures)
        self._seen, self._pair, self._laid = {}, None, []
        self._volumes.forget()
        self._history.forget()
        self._watch = QualityWatch(self._pixel_nm, self._layers_nm)

    def _forget(self, finished: Mapping[tuple[float, float], Angle]) -> bool:
        """Forget the angles that are not finished any more; return whether the volume was made from one of them."""
        self._failures = {place: one for place, one in self._failures.items() if place in finished}
        known = {*self._seen} if self._newest is None else {*self._seen, self._newest}
        gone = known - finished.keys()
        for place in gone:
            self._seen.pop(place, None)
        if self._newest in gone:
            self._newest, self._pair = next(reversed(self._seen), None), None
        return bool(gone)

    def _make_signals(self, finished: Mapping[tuple[float, float], Angle]) -> bool:
        """Make signals of what has finished or changed; return whether there are new ones."""
        fresh, told_s = False, time.monotonic()
        for place, angle in finished.items():
            if time.monotonic() - told_s >= TOLD_S:
                self._tell(reading=len(finished))
                told_s = time.monotonic()
            failure = self._failures.get(place)
            if place in self._seen and self._seen[place].angle == angle:
                continue
            if failure is not None and failure.of == angle and not _again(failure):
                continue
            try:
                used, made = self._exposures.read(angle, self._processor.signals)
                self._seen.pop(place, None)
                needed = needed_for_volume(made, self._pixel_nm)
                self._seen[place] = SeenView.of(used, needed, self._pixel_nm)
            except Exception as problem:  # whatever it is, the other angles go on
                message = self._troubles.tell(place, problem)
                self._failures[place] = _Failure(angle, message, time.monotonic())
            else:
                self._failures.pop(place, None)
                self._troubles.over(place)
                self._newest, self._pair, fresh = place, made, True
        return fresh

    def _judge(self) -> None:
        """Say what is wrong, what the views so far tell, and what more would bring; the volume is out already."""
        stands = self._exposures.standing()
        missing = {(key.phi_deg, key.theta_deg) for key in stands.missing} - self._seen.keys()
        seen = list(self._seen.values())
        try:
            self._watch.look(seen)
            self._watch.look_at_azimuths(self._laid)
            fresh = self._advisor.look(seen, sorted(missing))
        except Exception as problem:  # whatever it is, no volume fails because of it
            self._troubles.tell("advice", problem, "no advice: ")
            return
        self._troubles.over("advice")
        if fresh and self._history.entries:
            self._history.entries[-1]["resolution_nm"] = self._advisor.resolution_nm
        self._status.update(
            resolution_nm=self._advisor.resolution_nm,
            advice=self._advisor.advice,
        )
        self._flags = self._watch.flags()
        self._judged_until = max((one.time for one in seen), default=None)

    def _state(self, stands: Standing[Exposure], *, all_there: bool) -> dict[str, str]:
        """Say how the series stands: what failed comes first."""
        if self._not_published is not None:
            return {"state": "error", "message": self._not_published.message}
        if self._failures:
            message = next(iter(self._failures.values())).message
            return {"state": "error" if all_there else "following", "message": message}
        if stands.unassigned:
            message = (
                f"{describe_key(stands.unassigned[0])}: taken with the jaws elsewhere, its sign is unknown; "
                "take it again with `resume`"
            )
            return {"state": "following", "message": message}
        aligned = f"; {self._alignment.message}" if self._alignment is not None else ""
        if all_there:
            return {"state": "complete", "message": f"all angles are in the volume{aligned}"}
        if self._seen:
            angles = f"{len(self._seen)} of {self._exposures.angles_planned} angles"
            return {"state": "following", "message": f"{angles} in the volume{aligned}"}
        return {"state": "waiting", "message": "waiting for the first angle"}

    def _publish(self, begin_s: float) -> _Failure | None:
        """Write the pair of the newest angle and the volume, or say why not; the files of before stay then.

        Where every angle was rejected, there is no volume any more.
        """
        if self._newest is None:
            for name in (PAIR, VOLUME):
                (self._folder / name).unlink(missing_ok=True)
            self._alignment, self._flags = None, []
            self._history.forget()
            self._status.update(
                phi_deg=None, theta_deg=None, residual=None, alignment=None, singularities=[],
                views=[], latency_s=None, provisional=False,
            )  # fmt: skip
            return None
        newest = self._seen[self._newest]
        angle = newest.angle
        helicity = max(angle.exposures, key=lambda h: angle.exposures[h][-1].time)
        signals = [one.signals for one in self._seen.values()]
        try:
            made = self._pair or self._processor.signals(angle)
            pair = FrameExamples(
                frame_vu=angle.exposures[helicity][-1].read(),
                absorption_vu=made.signals.absorption_vu,
                dichroic_vu=made.signals.dichroic_vu,
                phi_deg=made.phi_deg,
                theta_deg=made.theta_deg,
                helicity=helicity,
            )
            write_pair(self._folder / PAIR, pair)
            self._status.update(phi_deg=made.phi_deg, theta_deg=made.theta_deg)
            if newest.time != self._latest_at:
                self._status.update(latency_s=None)
            missing = self._exposures.standing().missing
            for one in self._volumes.make(signals, self._following(missing), more=bool(missing)):
                self._put(one, newest.time, begin_s)
                volume = one.volume
        except OSError:  # nothing can be written
            raise
        except Exception as problem:  # whatever it is, the last good volume stays
            message = self._troubles.tell("volume", problem, "no new volume: ")
            return _Failure(None, message, time.monotonic())
        self._troubles.over("volume")
        # From one azimuth alone one component in the plane is not seen, and charges mean nothing.
        found = []
        if len(volume.residuals) > 1:
            points = singularities_in_layers(volume, self._layers_nm)
            found = self._history.singularities(points, volume.voxel_nm)
        self._status.update(singularities=found)
        return None

    def _put(self, made: MadeVolume, taken_at: float, begin_s: float) -> None:
        """Publish a volume and what is known with it; the time to the first of an angle is its latency."""
        write_volume(self._folder / VOLUME, made.volume)
        self._not_published, self._alignment, self._laid = None, made.alignment, made.views
        now = time.time()
        latency_s = self._status["latency_s"]
        # What was measured before this process began was not waited for, nor is what is made again.
        if taken_at > self._latest_at:
            latency_s, self._latest_at = round(now - taken_at, 3), taken_at
        rms = np.concatenate([series.residual_rms for series in made.volume.residuals])
        told = {
            "residual": float(np.sqrt(np.mean(rms**2))),
            "update_s": round(time.monotonic() - begin_s, 3),
            "latency_s": latency_s,
        }
        if not made.provisional:
            entry = {"time": now, "angles": len(self._seen), "resolution_nm": None, **told}
            self._history.add(entry, made.volume)
        self._status.update(
            told,
            provisional=made.provisional,
            updates=self._status["updates"] + (not made.provisional),
            alignment=made.alignment.to_json(),
            views=entries(list(self._seen.values()), drifts_of(made.views, self._pixel_nm)),
        )
        self._tell()

    def _following(self, missing: Sequence[Key]) -> NextView | None:
        """Return the angle that is exposed next, if its azimuth is there already."""
        for one in reversed(self._seen.values()) if missing else ():
            if one.angle.phi_deg == missing[0].phi_deg:
                return one.angle.stated_phi_deg, missing[0].theta_deg
        return None


def _again(failure: _Failure) -> bool:
    return time.monotonic() - failure.at_s >= RETRY_S


def _published(folder: Path) -> dict[str, Any]:
    """Return the status that was published before, empty if there is none that can be read."""
    try:
        return read_status(folder / STATUS)
    except ValueError:
        return {}
