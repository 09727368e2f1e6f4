"""What a resumed measurement begins with: brightness and photons of the exposures that count."""

import pytest

from mistral_txm.devices.configuration import load_configuration
from mistral_txm.plans import Measurement
from mistral_txm.plans.steps import manifest
from mistral_txm.profile_collection.looked import looked
from mistral_txm.profile_collection.measured import measured
from mistral_txm.services.journal import JournalWriter

CCD = load_configuration().ccd
PHOTON_COUNTS = 707.4 / 3.65 / 1.6
"""Electrons of a photon at the iron edge, over electrons per count."""
FILM = Measurement.from_dict(
    {
        "sample": {"name": "film"},
        "tilts": [{"first_deg": 0.0, "last_deg": 0.0, "exposure_s": 8.0, "repeats": 3}],
        "azimuths_deg": [0.0],
        "energies_ev": [707.4],
        "flats": {"exposure_s": 3.0, "repeats": 1},
        "darks": {"repeats": 1},
    }
)
PLUS = [key for key in FILM.planned_keys() if key.helicity == 1]


class Run:
    """Writes the journal of a run, with frames that lie nowhere."""

    def __init__(self, journal, uid):
        self.journal, self.uid, self.count, self.streams = journal, uid, 0, {}
        journal(
            "start",
            {
                "uid": uid,
                "time": 1.0,
                "series": "film",
                "energy_ev": 707.4,
                "measurement": FILM.to_dict(),
                "planned_keys": manifest(FILM),
                "phi_deg": 0.0,
            },
        )
        parameters = {"dataset": "/frames"}
        resource = {"uid": f"{uid}-r", "run_start": uid, "uri": "file://localhost/nowhere.h5"}
        journal("stream_resource", {**resource, "parameters": parameters})

    def expose(self, stream, key, exposure_s, mean, bright):
        if stream not in self.streams:
            self.streams[stream] = 0
            columns = {"key_phi_deg": {}}
            descriptor = {"uid": f"{self.uid}-{stream}", "run_start": self.uid, "name": stream}
            self.journal("descriptor", {**descriptor, "data_keys": columns, "time": 1.0})
        self.streams[stream] += 1
        self.count += 1
        descriptor, number = f"{self.uid}-{stream}", self.streams[stream]
        ends = {"start": number, "stop": number + 1}
        datum = {"uid": f"{self.uid}-r/{self.count}", "stream_resource": f"{self.uid}-r"}
        self.journal(
            "stream_datum", {**datum, "descriptor": descriptor, "seq_nums": ends, "indices": ends}
        )
        names = ("phi_deg", "theta_deg", "helicity", "repeat")
        data = {f"key_{name}": value for name, value in zip(names, key, strict=True)}
        data |= {"theta": key[1], "polarization": key[2], "ring_current": 200.0}
        data |= {"ccd_frame_number": number, "ccd_frame_crc32": self.count}
        data |= {"ccd_exposure_s": exposure_s, "ccd_saturated_fraction": 0.0}
        data |= {"ccd_mean_counts": mean, "ccd_bright_counts": bright}
        event = {"uid": f"{self.uid}-e{self.count}", "descriptor": descriptor, "seq_num": number}
        self.journal("event", {**event, "time": 2.0, "data": data, "timestamps": {}})


@pytest.fixture
def begun(tmp_path):
    """Two runs: the first took all repeats of one helicity, the second the first of them again, for a shorter time."""
    with JournalWriter(tmp_path / "journal") as journal:
        first = Run(journal, "first")
        first.expose("dark", (0.0, 0.0, 0, 0), 8.0, 300.0, 310.0)
        for repeat, key in enumerate(PLUS):
            first.expose(
                "primary", key, 8.0, 300.0 + (100 + repeat) * PHOTON_COUNTS, 300.0 + 40_000
            )
        second = Run(journal, "second")
        second.expose("dark", (0.0, 0.0, 0, 0), 4.0, 320.0, 330.0)
        second.expose("primary", PLUS[0], 4.0, 320.0 + 50 * PHOTON_COUNTS, 320.0 + 16_000)
    (found,) = measured(tmp_path)
    return tmp_path, found


def test_photons_and_brightness_are_those_of_what_counts(begun):
    """The dark frames are each run's own: 300 counts in one, 320 in the other."""
    found = looked(*begun, CCD, {707.4: frozenset(PLUS)})
    assert found.photons == {
        (707.4, 0.0, 0.0, 1): pytest.approx({0: 50.0, 1: 101.0, 2: 102.0}),
    }
    assert found.bright_per_ma_s == {(707.4, 1): pytest.approx({0.0: 16_000 / 4.0 / 200.0})}


def test_what_is_taken_again_does_not_count(begun):
    """A frame that is damaged is not done, though the journal has it."""
    found = looked(*begun, CCD, {707.4: frozenset(PLUS[1:])})
    assert found.photons == {(707.4, 0.0, 0.0, 1): pytest.approx({1: 101.0, 2: 102.0})}
    assert found.bright_per_ma_s == {(707.4, 1): pytest.approx({0.0: 40_000 / 8.0 / 200.0})}
