"""The examples of the how-to run as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest

from mistral_txm.services.catalog import wait_until_written
from tests.services.live_folder import live

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "find-and-read-data.md"

pytestmark = [pytest.mark.usefixtures("service"), pytest.mark.slow]


def test_the_examples_run(beamline, catalog, data, capsys):
    groups = [(0.0, -10.0, 1, 2), (0.0, -10.0, -1, 2)]
    film = {"sample": {"name": "trilayer"}, "energy_ev": 707.4, "n_planned": 600}

    first = beamline.camera.count + 1

    def note(count):
        if count == first:
            yield from beamline.say("note", "as planned")

    series = "9ba75d36-made-for-the-page"
    uid = beamline.measure(groups, series, note, flats=1, md=film)
    turned = beamline.measure(groups, series, keys=[], md=film | {"phi_deg": 102.0})
    volume = live(data, series, [uid, turned], 46, complete=True)
    assert wait_until_written(data, 120.0)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) == 6
    found = {"data": data}
    for example in examples:
        exec(compile(example.replace("85ac14da", uid), str(PAGE), "exec"), found)
    assert capsys.readouterr().out == f"{turned} vector_tomography\n46 direct layers 10.5\n"
    np.testing.assert_array_equal(found["plane"], volume.mz[1])
    np.testing.assert_array_equal(found["field"]["my"], volume.my)
    assert set(found["long"]) == {uid, turned}
    assert set(found["failed"]) == set()
    frames = found["series"].frames.sel(phi=0, theta=-10).values
    assert frames.all()
    np.testing.assert_array_equal(found["counts"], frames.mean(axis=1))
