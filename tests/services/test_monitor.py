"""The monitor's page: what its texts say, and a real server with a real client."""

import http.client
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from mistral_txm.devices.key import Key
from mistral_txm.services.exposures import Exposure, LogEntry
from mistral_txm.services.lifeline import ServiceProcess
from mistral_txm.services.live_view import Snapshot
from mistral_txm.services.monitor_door import is_loopback
from mistral_txm.services.monitor_health import Health
from mistral_txm.services.monitor_images import LARGEST_IMAGE, rgba, smaller
from mistral_txm.services.monitor_progress import Place, Progress
from mistral_txm.services.monitor_words import (
    frame_words,
    head_html,
    log_html,
    returns_html,
    side_html,
)

MODULE = "mistral_txm.services.monitor"
NOW_S = 2000.0
HOSTILE = "<script>alert('x')</script>"


def exposure(tmp_path, stream: str = "primary") -> Exposure:
    return Exposure(
        run_uid="run",
        stream=stream,
        seq_num=7,
        key=Key(102.0, -31.0, -1, 4),
        theta_deg=-31.0,
        polarization=-1,
        path=tmp_path / "frames.h5",
        dataset="frames",
        frame_number=6,
        crc32=0,
        exposure_s=8.0,
        ring_current_ma=200.0,
        saturated_fraction=0.0,
        time=1990.0,
    )


def test_progress_in_words(tmp_path):
    progress = Progress(
        "a-series", "a film", 40, 10, "measuring", exposure(tmp_path), Place(2, 2, 3, 9, 5), 10.0
    )
    text = head_html(Snapshot(progress=progress), NOW_S)
    assert "a film" in text
    assert "10 of 40 exposures · 25%" in text
    assert "φ 102° (2/2), θ −31° (3/9), helicity -1, repeat 5/5" in text
    assert "newest frame 10 s ago" in text
    ends = time.strftime("%a %H:%M", time.localtime(1990.0 + 30 * 10))
    assert f"about 4 min left, ends {ends}" in text
    assert "width:25.0%" in text
    dead = Health("acquisition", "bad", "has ended: `resume` takes the rest")
    text = head_html(Snapshot(progress=progress, health=(dead,)), NOW_S)
    assert "✗ acquisition: has ended: `resume` takes the rest" in text
    assert "broken off" in text
    assert "measuring" not in text
    assert "ends" not in text
    held = replace(progress, held=LogEntry(1995.0, "pause", "turn the sample"))
    assert "about 5 min left, ends not before" in head_html(Snapshot(progress=held), NOW_S)
    first = replace(progress, place=Place(1, 2, 3, 9, 5))
    assert "ends not before" in head_html(Snapshot(progress=first), NOW_S)


def test_what_is_stale_is_called_stale():
    status = {"state": "following", "updated_at": NOW_S - 300, "update_s": 2.0}
    assert "stale: live reconstruction silent for 5 min" in head_html(
        Snapshot(status=status), NOW_S
    )
    fresh = status | {"updated_at": NOW_S - 3}
    assert "stale" not in head_html(Snapshot(status=fresh), NOW_S)
    assert "3 s ago" in side_html(Snapshot(status=fresh), NOW_S)


@pytest.mark.parametrize("render", [head_html, side_html, lambda *given: returns_html(given[0])])
def test_every_text_is_escaped(render):
    progress = Progress(HOSTILE, HOSTILE, 1, 0, HOSTILE, None)
    status = dict.fromkeys(
        ("state", "message", "angles_done", "angles_planned", "residual", "phi_deg"), HOSTILE
    )
    status["returns"] = [{"phi_deg": 0.0, "text": HOSTILE}]
    text = render(Snapshot(progress=progress, status=status, problems=(HOSTILE,)), NOW_S)
    assert "<script" not in text


@pytest.mark.parametrize(
    "status",
    [
        {"singularities": "none"},
        {"flags": ["none"], "advice": ["wait"], "views": 3, "history": [None]},
        {"singularities": [{"x_nm": 1}, 7, None]},
        {"singularities": [{"x_nm": "1", "y_nm": 2, "z_nm": 3, "charge": 1}]},
        {"updated_at": None, "update_s": [], "lag_frames": {}, "phi_deg": "0", "residual": True},
    ],
)
def test_a_status_with_nonsense_in_it_is_shown_as_far_as_it_makes_sense(status):
    head_html(Snapshot(status=status), NOW_S)
    assert "none yet" in side_html(Snapshot(status=status), NOW_S)


def test_singularities_are_listed_with_their_charge():
    points = [
        {"x_nm": -390.0, "y_nm": 260.4, "z_nm": 80.0, "charge": -1.0},
        *[{"x_nm": 0.0, "y_nm": 0.0, "z_nm": float(i), "charge": 1.0} for i in range(9)],
    ]
    text = side_html(Snapshot(status={"singularities": points}), NOW_S)
    assert "<th>−390, 260.4, 80</th><td>−1</td>" in text
    assert "and 2 more" in text
    sure = [point | {"sureness": 0.93} for point in points]
    assert "<td>−1 (93%)</td>" in side_html(Snapshot(status={"singularities": sure}), NOW_S)


def test_images_are_averaged_down_and_keep_their_size_and_mean():
    image = np.zeros((1030, 2060), dtype=np.uint16)
    image[:, :1030] = 4
    averaged, pixel_nm = smaller(image, 10.0)
    assert max(averaged.shape) <= LARGEST_IMAGE
    assert pixel_nm == 50
    assert averaged.shape == (206, 412)
    assert averaged.mean() == 2
    same, pixel_nm = smaller(image[:256, :256], 10.0)
    assert same.shape == (256, 256)
    assert pixel_nm == 10


def test_colours_are_packed_as_red_green_blue_alpha():
    packed = rgba(np.array([[[1.0, 0.5, 0.0]]]))
    assert packed.view(np.uint8).tolist() == [[255, 128, 0, 255]]


def test_flags_and_advice_come_before_everything_else_that_is_said():
    status = {
        "flags": [{"kind": "focus", "phi_deg": 0, "theta_deg": -30, "text": f"refocus {HOSTILE}"}],
        "advice": {"text": "theta 12 deg next", "repeats_text": "two repeats are enough"},
        "message": "all well",
    }
    text = head_html(Snapshot(status=status), NOW_S)
    assert "focus at φ 0°, θ −30°: refocus &lt;script&gt;" in text
    assert text.index("refocus") < text.index("theta 12 deg next") < text.index("all well")
    assert "two repeats are enough" in text


def test_of_many_flags_the_newest_stand_at_the_top_and_all_below():
    status = {"flags": [{"kind": "focus", "text": f"flag {number}"} for number in range(9)]}
    head = head_html(Snapshot(status=status), NOW_S)
    assert head.index("flag 8") < head.index("flag 6") < head.index("and 6 more flags")
    assert "flag 5" not in head
    assert all(f"flag {number}" in log_html([], [], status) for number in range(9))


def test_a_frame_tells_its_saturation_and_its_drift(tmp_path):
    taken = replace(exposure(tmp_path), time=1.7e9, mean_counts=812.4, saturated_fraction=1e-5)
    told = {"helicity": -1, "repeat": 5, "time": 1.7e9, "drift_vu_pixels": [0.125, -1.5]}
    others = [
        told | one | {"drift_vu_pixels": [9, 9]} for one in ({"helicity": 1}, {"time": 1.7e9 - 1})
    ]
    status = {"newest_exposures": [*others, told, None, {"time": "late"}]}
    assert frame_words(taken, 100_000, status).splitlines() == [
        "frame: mean 812, 1 pixel saturated", "drift v +0.12, u −1.50 pixels",
    ]  # fmt: skip
    flat = exposure(tmp_path, "flat")
    assert frame_words(flat, 9, status) == "frame: no pixels saturated\nopen beam"
    bright = replace(taken, saturated_fraction=0.002)
    assert "⚠ 0.2 % saturated" in frame_words(bright, 100_000, status)
    assert "not known yet" in frame_words(replace(taken, time=1.7e9 + 1), 100_000, status)
    first = replace(taken, key=Key(102.0, -31.0, -1, 0))
    status = {"newest_exposures": [told | {"repeat": 1, "drift_vu_pixels": None}]}
    assert "the first of its angle" in frame_words(first, 100_000, status)


def test_returns_to_zero_are_told_where_the_series_has_them():
    progress = Progress("a-series", "a film", 40, 10, "measuring", None)
    assert returns_html(Snapshot(progress=progress)) == ""
    progress = replace(progress, returns_at=(0.0, 102.0))
    status = {"returns": [{"phi_deg": 0.25, "text": "as it was"}, "garbage"]}
    assert "<th>φ 0.2°</th><td>as it was</td>" in returns_html(Snapshot(status=status))
    text = returns_html(Snapshot(progress=progress, status=status))
    assert "<th>φ 0°</th><td>as it was</td>" in text
    assert "<th>φ 102°</th><td>not taken yet</td>" in text
    taken = replace(progress, returned=frozenset({102.0}))
    assert "<th>φ 102°</th><td>taken, not compared yet</td>" in returns_html(
        Snapshot(progress=taken)
    )


def test_the_log_has_the_newest_first_and_all_is_escaped():
    log = [LogEntry(1000.0, "pause", HOSTILE), LogEntry(1001.0, "go_on", "the light is back")]
    text = log_html(log, [Health("watchdog", "bad", HOSTILE)], {"flags": [{"text": HOSTILE}]})
    assert "<script" not in text
    assert text.index("the light is back") < text.index("<td>pause</td>")
    assert "✗ watchdog" in text


@pytest.mark.parametrize(
    ("address", "inside"), [("127.8.0.1", True), ("10.0.0.1", False), ("hall", False)]
)
def test_which_addresses_others_can_reach(address, inside):
    assert is_loopback(address) is inside


@pytest.fixture(scope="module")
def monitor(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    process = ServiceProcess(
        MODULE,
        ["--data", str(data), "--lifeline"],
        log=data / "logs" / "monitor.log",
    )
    with process:
        yield data, process.wait_ready(120.0)["uri"]


@pytest.mark.slow
def test_the_page_needs_nothing_from_outside(monitor):
    _, uri = monitor
    assert uri.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(uri, timeout=120) as answer:
        page = answer.read().decode()
    links = [part.split('"')[0] for mark in ('src="', 'href="') for part in page.split(mark)[1:]]
    assert links
    assert all(link.startswith("/") and not link.startswith("//") for link in links)


@pytest.mark.slow
def test_it_listens_on_one_loopback_address_alone(monitor):
    """A server on all addresses would answer at 127.0.0.2 too."""
    _, uri = monitor
    port = int(uri.rsplit(":", 1)[1].strip("/"))
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", port))


@pytest.mark.slow
@pytest.mark.parametrize(("origin", "status"), [("http://evil.example", 403), (None, 101)])
def test_pages_of_other_sites_cannot_listen_in(monitor, origin, status):
    """A browser sends the origin of the page that opens a socket; only our own is let in."""
    _, uri = monitor
    host = uri.removeprefix("http://").strip("/")
    with urllib.request.urlopen(uri, timeout=120) as answer:
        token = answer.read().decode().split('"token":"')[1].split('"')[0]
    connection = http.client.HTTPConnection(host, timeout=120)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Origin": origin or uri.strip("/")}
    headers["Sec-WebSocket-Protocol"] = f"bokeh, {token}"
    connection.request("GET", "/ws", headers=headers)
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status"), [("evil.example", 403), ("localhost", 200), ("[::1]", 200)]
)
def test_it_answers_to_the_names_of_loopback_alone(monitor, name, status):
    """Through a tunnel the port may be another; a foreign name that leads here is DNS rebinding."""
    _, uri = monitor
    with closing(http.client.HTTPConnection(uri[7:].strip("/"), timeout=120)) as connection:
        connection.request("GET", "/", headers={"Host": f"{name}:1234"})
        assert connection.getresponse().status == status


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", MODULE, "--data", str(tmp_path), "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"monitor: port {port}: ")
    assert ended.stderr.count("\n") == 1
