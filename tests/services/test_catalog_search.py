"""Runs are found by what their start documents say, in every kind of client of a real catalog."""

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta

import pytest
from tiled.client import from_uri
from tiled.queries import Key

from mistral_txm.services.catalog import catalog_environment, wait_until_written
from mistral_txm.services.catalog_search import find

GROUPS = [(0.0, -10.0, 1, 1)]
TURNED = [(102.0, -10.0, 1, 1)]

pytestmark = [pytest.mark.usefixtures("service"), pytest.mark.slow]


@pytest.fixture(scope="module")
def runs(data, service, beamline_class):
    """Three runs of two series and a rejection, by name."""
    beamline = beamline_class(data)
    film = {"sample": {"name": "found film"}, "energy_ev": 707.43}
    found = {
        "iron": beamline.measure(GROUPS, series="find_me-707.4eV", md=film),
        "turned": beamline.measure(TURNED, series="find_me-707.4eV", md=film | {"phi_deg": 101.2}),
        "cobalt": beamline.measure(
            GROUPS, series="findXme-778.1eV", md=film | {"energy_ev": 778, "phi_deg": 0}
        ),
        "rejection": beamline.reject([(0.0, -10.0, 1, 0)], series="find_me-707.4eV"),
    }
    assert wait_until_written(data, 120.0)
    return found


@pytest.fixture(params=["opened", "v2", "v3", "from_uri"])
def cat(request, catalog, data):
    match request.param:
        case "opened":
            yield catalog
        case "from_uri":
            address = json.loads((data / "catalog" / "address.json").read_text())
            client = from_uri(address["uri"], api_key=(data / "catalog" / "api_key").read_text())
            yield client
            client.context.http_client.close()
        case flavour:
            yield getattr(catalog, flavour)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"sample": "found film"}, {"iron", "turned", "cobalt"}),
        ({"series": "find_me-707.4eV"}, {"iron", "turned", "rejection"}),
        ({"series": "find_"}, {"iron", "turned", "rejection"}),
        ({"series": "FIND_ME"}, set()),
        ({"series": "find", "plan_name": "vector_tomography"}, {"iron", "turned", "cobalt"}),
        ({"series": "find", "plan_name": "reject"}, {"rejection"}),
        ({"series": "find", "energy_ev": 707.4}, {"iron", "turned"}),
        ({"series": "find", "energy_ev": 707.37}, set()),
        ({"series": "find", "energy_ev": 778.05}, {"cobalt"}),
        ({"series": "find", "phi_deg": 0}, {"iron", "cobalt"}),
        ({"series": "find", "phi_deg": 102}, {"turned"}),
        ({"series": "find", "phi_deg": 100.2}, {"turned"}),
        ({"series": "find", "phi_deg": 100.1}, set()),
        ({"sample": "found film", "phi_deg": 102, "energy_ev": 707.4}, {"turned"}),
        ({"sample": "nobody's"}, set()),
    ],
)
def test_what_is_asked_for_is_found(runs, cat, wanted, expected):
    assert set(find(cat, **wanted)) == {runs[name] for name in expected}


def test_nothing_asked_for_is_everything(catalog):
    assert find(catalog) is catalog


def test_times_and_days(runs, catalog):
    stamp = catalog[runs["turned"]].metadata["start"]["time"]
    began = datetime.fromtimestamp(stamp)
    tick = timedelta(microseconds=2)

    def found(**when):
        return {name for name, uid in runs.items() if uid in set(find(catalog, **when))}

    assert found(since=began - tick) == {"turned", "cobalt", "rejection"}
    assert found(since=began + tick) == {"cobalt", "rejection"}
    assert found(until=began - tick) == {"iron"}
    assert found(since=(began - tick).isoformat(), until=(began + tick).isoformat()) == {"turned"}
    in_utc = datetime.fromtimestamp(stamp, UTC)
    assert found(since=in_utc - tick, until=in_utc + tick) == {"turned"}
    assert found(since=(in_utc - tick).isoformat(), until=in_utc + tick) == {"turned"}
    days = {date.fromtimestamp(catalog[uid].metadata["start"]["time"]) for uid in runs.values()}
    assert found(since=min(days), until=max(days)) == set(runs)
    assert found(since=min(days).isoformat(), until=max(days).isoformat()) == set(runs)
    assert found(since=max(days) + timedelta(days=1)) == set()
    assert found(until=min(days) - timedelta(days=1)) == set()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"since": "yesterday"}, "since: 'yesterday': expected a day or a time"),
        ({"until": "2026-13-01"}, "until: '2026-13-01': expected a day or a time"),
        ({"energy_ev": float("nan")}, "energy_ev: nan: expected a finite number"),
        ({"phi_deg": float("inf")}, "phi_deg: inf: expected a finite number"),
    ],
)
def test_what_cannot_be_understood_is_refused(catalog, wrong, words):
    with pytest.raises(ValueError, match=words):
        find(catalog, **wrong)


def test_a_found_catalog_is_narrowed_further_by_raw_queries(runs, catalog):
    found = find(catalog, series="find")
    assert set(found.search(Key("exit_status") == "success")) == set()  # of the start document
    assert set(found.search(Key("start.reason") == "the film slipped")) == {runs["rejection"]}
    assert set(found.search(Key("stop.exit_status") == "success")) == set(runs.values())


def test_databroker_finds_the_same(runs, data):
    program = """
import json, databroker
from mistral_txm.services.catalog_search import find
cat = databroker.catalog["mistral_txm"]
flavours = [cat, cat.v2, cat.v3]
print(json.dumps([sorted(find(one, series="find", energy_ev=707.4, phi_deg=0)) for one in flavours]))
"""
    environment = {**os.environ, **catalog_environment(data)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [[runs["iron"]]] * 3
