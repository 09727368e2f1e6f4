"""A headless Chromium, and what tests ask of the page in it."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
)
DEADLINE_S = 120.0

TEXTS = """
const texts = [];
const walk = (node) => {
  for (const one of node.querySelectorAll("*")) if (one.shadowRoot) {
    texts.push(...[...one.shadowRoot.children].filter(c => c.tagName !== "STYLE").map(c => c.innerText ?? ""));
    walk(one.shadowRoot);
  }
};
walk(document);
return document.body.innerText + " " + texts.join(" ");
"""
"""What the page says, also inside the shadow trees of Bokeh's models."""

OUTSIDE = """
const outside = [];
const walk = (node) => {
  for (const one of node.querySelectorAll("*")) {
    const box = one.getBoundingClientRect();
    const shown = one.checkVisibility({visibilityProperty: true, opacityProperty: true});
    if (shown && box.width > 0 && box.height > 0 && box.right > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5))
      outside.push(`${one.tagName}.${one.className} ${box.left} to ${box.right}`);
    if (one.shadowRoot) walk(one.shadowRoot);
  }
};
walk(document.body);
if (document.scrollingElement.scrollWidth > innerWidth) outside.push("the page scrolls sideways");
return outside;
"""
"""What sticks out of the window to the left or to the right."""


class Page:
    """A browser, and the page that it shows."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, uri: str, width: int = 1280, height: int = 800) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(uri)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    @property
    def text(self) -> str:
        return str(self.run(TEXTS))

    def says(self, text: str) -> None:
        self.until(lambda: text in self.text, lambda: f"{text!r} is not in {self.text!r}")

    def until(self, found: Callable[[], Any], complaint: Callable[[], str]) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not found():
            if time.monotonic() > deadline_s:
                pytest.fail(complaint())
            time.sleep(0.1)

    def column(self, source: str, name: str) -> list[Any]:
        """A column of a source of data that has a name, as numbers; of images, the first one."""
        return self.run(
            "const data = Bokeh.documents[0].get_model_by_name(arguments[0]).data[arguments[1]];"
            "return Array.from(ArrayBuffer.isView(data[0]) ? data[0] : data,"
            "                  (one) => Number.isNaN(one) ? null : one)",
            source,
            name,
        )

    def requests(self) -> list[str]:
        """Addresses that the browser has asked since this was called last."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return [
            found["params"].get("request", found["params"])["url"]
            for found in messages
            if found["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")
        ]


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Start one; where there is none, the test is skipped."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    driver_path = shutil.which("chromedriver")
    if driver_path is None or shutil.which("chromium") is None:
        pytest.skip("no chromium and chromedriver here: install them to test the page")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        yield Page(driver)
    finally:
        driver.quit()
