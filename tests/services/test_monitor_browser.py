"""The monitor's page in a real browser: what it shows is what the files hold, and goes on being that."""

import http.client
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mistral_txm.services.lifeline import ServiceProcess
from tests.services.browsers import OUTSIDE, chromium
from tests.services.measured_folder import MeasuredFolder

MARKED = "return document.getElementById('scene').data.find((one) => one.name === 'charge +').x"
pytestmark = pytest.mark.slow
MODULE = "mistral_txm.services.monitor"


def monitor_of(data: Path, *options: str) -> ServiceProcess:
    arguments = ["--data", str(data), "--lifeline", *options]
    return ServiceProcess(MODULE, arguments, log=data / "logs" / "monitor.log")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return MeasuredFolder(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def monitor(folder):
    """The process, not waited for: the browser starts at its side."""
    with monitor_of(folder.data) as process:
        yield process


@pytest.fixture(scope="module")
def browser(tmp_path_factory, monitor):
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def page(browser, monitor):
    """The page of the measurement, open through all tests of this file."""
    browser.open(monitor.wait_ready(120.0)["uri"])
    browser.says("4 of 8 exposures")
    browser.until(lambda: browser.column("flux", "time"), lambda: "no flux")
    return browser


def websocket_answers(place: str, token: str, origin: str) -> int:
    """Return how a web socket is answered that shows a cookie as the page's browser would."""
    port = place.rsplit(":", 1)[1].strip("/")
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Origin": origin.strip("/")}
    headers |= {"Cookie": f"mistral-txm-monitor-{port}={token}"}
    with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)) as connection:
        connection.request("GET", "/ws", headers=headers)
        return connection.getresponse().status


def close(shown: list[Any], expected: Any) -> bool:
    return np.allclose(np.array(shown, dtype=float), np.ravel(expected), rtol=1e-6, equal_nan=True)


def test_numbers_on_the_page_are_those_in_the_files(page, folder):
    status, m_czyx = folder.status, folder.m_czyx
    assert (
        "φ 0° (1/1), θ −30° (1/2), helicity -1, repeat 2/2" in page.text
    )  # the journal's newest exposure
    assert "3 of 4" in page.text
    assert f"{status['residual']:.3g}" in page.text
    assert "+1 (90%)" in page.text
    assert "15.8, −5.2, 5.2" in page.text
    z, y, x = (folder.index(status["singularities"][0][f"{a}_nm"], a) for a in "zyx")
    for plane, cut_yx in (
        ("xy", m_czyx[2, z]),
        ("xz", m_czyx[2, :, y]),
        ("yz", m_czyx[2, :, :, x]),
    ):
        assert close(page.column(f"{plane} component image", "image"), cut_yx)
    assert close(page.column("frame image", "image"), folder.newest_frame_vu)
    assert close(
        page.column("views", "drift_u_pixels"),
        [one["drift_vu_pixels"][1] for one in status["views"]],
    )
    assert close(page.column("history", "residual"), [one["residual"] for one in status["history"]])
    for side, name in ((1, "primary_plus"), (-1, "primary_minus")):
        shown = [value for value in page.column("flux", name) if value is not None]
        assert close(shown, [folder.flux_of(side)])


def test_vectors_and_singularities_are_drawn_in_three_dimensions(page, folder):
    page.until(
        lambda: page.run("return document.querySelectorAll('#scene canvas').length"),
        lambda: "nothing is drawn",
    )
    traces = page.run("return document.getElementById('scene').data.map((one) => one.type)")
    assert set(traces) == {"cone", "scatter3d"}
    names = page.run("return document.getElementById('scene').data.map((one) => one.name)")
    assert "charge +" in names
    assert page.run(MARKED) == [0.01575]


def test_it_changes_without_being_loaded_again_when_the_live_process_starts_anew(page, folder):
    page.run("window.here = true")
    folder.put("status.json", "{ half")
    page.says("not the status of a live reconstruction")
    assert "3 of 4" in page.text
    folder.put_status(
        angles_done=4, state="following", residual=0.0625, updated_at=time.time() - 300
    )
    page.says("silent for 5 min")
    folder.put_status(angles_done=4, state="complete", residual=0.0625, updated_at=time.time())
    folder.status["singularities"][0]["x_nm"] = -36.75
    seen = {"time": 1.7e9, "helicity": -1, "repeat": 2, "drift_vu_pixels": [0.25, -0.5]}
    back = {"phi_deg": 0.0, "text": "the sample is as it was"}
    folder.put_status(newest_exposures=[seen], returns=[back])
    folder.put_volume(2 * folder.m_czyx)
    page.says("0.0625")
    page.says("live: complete")
    page.says("the sample is as it was")
    assert page.column("exposures", "v_minus") == [0.25]
    assert page.column("exposures", "u_minus") == [-0.5]
    z = folder.index(folder.status["singularities"][0]["z_nm"], "z")
    page.until(
        lambda: close(page.column("xy component image", "image"), folder.m_czyx[2, z]),
        lambda: "the old volume",
    )
    page.until(lambda: page.run(MARKED) == [-0.03675], lambda: "the old figure")
    folder.expose(0.0, +1, 0)
    page.says("5 of 8 exposures")
    assert page.run("return window.here") is True


def test_it_asks_its_own_server_alone(browser, page, monitor):
    own = monitor.wait_ready(0.0)["uri"].split(":", 1)[1]
    asked = [address for address in browser.requests() if address.startswith(("http", "ws"))]
    assert any("plotly" in address for address in asked)
    assert any(address.startswith("ws:") for address in asked)
    assert [address for address in asked if not address.split(":", 1)[1].startswith(own)] == []


def test_what_matters_is_seen_without_scrolling(page):
    low = page.run(
        "return [...document.querySelectorAll('.page > :not(.wide):not(.sliders)')]"
        ".map((one) => Math.max(...[...one.children].map((c) => c.getBoundingClientRect().bottom)))"
    )
    assert len(low) == 7
    assert max(low) <= 800


def test_a_server_that_is_gone_is_told_and_found_again(page, folder, monitor):
    port = monitor.wait_ready(0.0)["uri"].rsplit(":", 1)[1].strip("/")
    monitor.stop()
    page.says("The monitor has lost its server")
    folder.expose(0.0, +1, 1)
    with monitor_of(folder.data, "--port", port):
        page.says("6 of 8 exposures")
        assert "lost" not in page.text


def test_on_a_phone_nothing_sticks_out_and_only_who_has_the_token_sees_it(browser, folder):
    with monitor_of(folder.data, "--address", "0.0.0.0") as process:
        uri = process.wait_ready(120.0)["uri"]
        token = uri.split("?token=")[1]
        place = f"http://127.0.0.1:{uri.rsplit(':', 1)[1].split('/')[0]}/"
        for wrong in (
            "",
            "?token=",
            f"?token={token[:-1]}",
            "ws",
            f"static/js/bokeh.min.js?token={token}",
        ):
            with pytest.raises(urllib.error.HTTPError, match="403") as refusal:
                urllib.request.urlopen(place + wrong, timeout=60)
            refusal.value.close()
        assert websocket_answers(place, token, origin="http://evil.example") == 403
        assert websocket_answers(place, "", origin=place) == 403
        browser.open(f"{place}?token={token}", 400, 860)
        browser.says("exposures")
        assert browser.run("return location.href") == place
        assert browser.run("return document.cookie") == ""
        assert token not in browser.run("return document.documentElement.outerHTML")
        browser.until(
            lambda: browser.run("return document.querySelectorAll('#scene canvas').length"),
            lambda: "nothing is drawn",
        )
        assert browser.run(OUTSIDE) == []
    assert token not in (folder.data / "logs" / "monitor.log").read_text()
