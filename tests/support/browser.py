"""A browser for tests of pages."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE, wait_until_sync

# Names that Chromium is installed under.
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

# It speaks to the page's server and to nobody else.
QUIET = (
    *("--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


class Browser:
    """Headless Chromium, spoken to over its debugging pipe (descriptors 3 and 4)."""

    LAUNCH = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
        "os.execv(sys.argv[3], sys.argv[3:])"
    )

    def __init__(self, chromium: str, profile: Path) -> None:
        commands, self._commands = self._pipe(reading=True)
        answers, self._answers = self._pipe(reading=False)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += QUIET
        options += [f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        launch = [sys.executable, "-c", self.LAUNCH, str(commands), str(answers), chromium]
        self._process = subprocess.Popen(
            [*launch, *options], pass_fds=(commands, answers), stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self._numbers, self._received = itertools.count(1), b""
        self._session: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    @staticmethod
    def _pipe(*, reading: bool) -> tuple[int, int]:
        """Chromium's end, well above 3 and 4, and ours."""
        read, write = os.pipe()
        theirs, ours = (read, write) if reading else (write, read)
        high = fcntl.fcntl(theirs, fcntl.F_DUPFD, 20)
        os.close(theirs)
        return high, ours

    def call(self, method: str, **params: object) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            part = os.read(self._answers, 65536)
            assert part, "Chromium ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def evaluate(self, script: str) -> Any:
        """Evaluate a script in the page; None if the page gives way to another one meanwhile."""
        try:
            answer = self.call(
                "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
            )
        except AssertionError as error:
            if "navigated" not in str(error):
                raise
            return None
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    @contextmanager
    def second_tab(self) -> Iterator[None]:
        """Speak to another tab of this browser, beside the first, and close it in the end."""
        first, self._session = self._session, {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        try:
            yield
        finally:
            self._session = {}
            self.call("Target.closeTarget", targetId=target)
            self._session = first

    def close(self) -> None:
        self.call("Browser.close")
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._commands)
            os.close(self._answers)


WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  refused.push(`${event.blockedURI} ${event.violatedDirective}`));
window.addEventListener("error", (e) => refused.push(String(e.message)), true);
"""


class Tab:
    """A page in the browser, off the event loop that serves it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        browser.call("Page.enable")
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    def open(self, url: str) -> None:
        # Chromium gives up what it loads when this machine gets a network, as other tests make.
        wait_until_sync(lambda: self._navigate(url) != "net::ERR_NETWORK_CHANGED", url)
        self.until("document.readyState === 'complete'")

    def _navigate(self, url: str) -> str | None:
        """Return the browser's error, if there is one."""
        error: str | None = self._browser.call("Page.navigate", url=url).get("errorText")
        return error

    def until(self, condition: str) -> Any:
        def holds() -> Any:
            try:
                return self._browser.evaluate(condition)
            except AssertionError:  # between two pages
                return None

        return wait_until_sync(holds, condition)

    def do(self, script: str) -> Any:
        return self._browser.evaluate(script)

    def check_quiet(self, url: str) -> None:
        """Nothing was refused by the page's policy, and nothing came from elsewhere."""
        refused = self.do("window.refused")
        assert refused == [], refused
        loaded = self.do("performance.getEntriesByType('resource').map((e) => e.name)")
        assert loaded and all(name.startswith(f"{url}/") for name in loaded), loaded

    def picture(self, path: Path, *, dark: bool = False, width: int = 1100) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._browser.call("Emulation.setEmulatedMedia", features=features)
        self._browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.save(path)

    def save(self, path: Path) -> None:
        """Save a picture of the page as it is."""
        data = self._browser.call("Page.captureScreenshot")["data"]
        path.write_bytes(base64.b64decode(data))

    def size(self, width: int, height: int = 900) -> None:
        self._browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def press(self, *keys: str) -> None:
        """Press keys as a person does: Enter also clicks the button that has the focus."""
        for key in keys:
            self.hold(key, 1)

    def hold(self, key: str, times: int) -> None:
        """Hold a key down until it has been sent this number of times."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "Backspace": 8}.get(key, 0)
        given = {"key": key, "windowsVirtualKeyCode": code}
        for number in range(times):
            self._browser.call(
                "Input.dispatchKeyEvent",
                type="keyDown",
                text=text,
                autoRepeat=number > 0,
                **given,
            )
        self._browser.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def click(self, selector: str) -> None:
        found = self.until(f"document.querySelector({selector!r}) !== null")
        assert found, selector
        self.do(f"document.querySelector({selector!r}).click()")

    def fill(self, selector: str, value: str, event: str) -> None:
        """Set a field and tell the page of it, which may draw between two steps."""
        script = """(field => {
  field.value = %s
  field.dispatchEvent(new Event(%s, { bubbles: true }))
})(document.querySelector(%s))"""
        self.do(script % (json.dumps(value), json.dumps(event), json.dumps(selector)))

    def go(self, view: str) -> None:
        """Show a view of the dashboard, which the page has open already."""
        self.do(f"location.hash = '#{view}'")
        name = view.split("/")[0]
        self.until(f"document.querySelector('[data-key=\"view-{name}\"]') !== null")

    def says(self, text: str) -> None:
        """Wait until the page shows this text, in which a space may be one that does not break."""
        self.until(f"document.body.innerText.replaceAll('\\u00a0', ' ').includes({text!r})")
