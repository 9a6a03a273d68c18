"""A browser for tests of pages."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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

    def close(self) -> None:
        self.call("Browser.close")
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._commands)
            os.close(self._answers)
