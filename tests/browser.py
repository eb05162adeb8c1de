"""A headless Chromium, driven over its DevTools pipe, so that a test needs no package for it."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--disable-features=IsolateSandboxedIframes",  # frames stay in the process of their page, where scripts reach them
)  # fmt: skip


def executable() -> str | None:
    """The first Chromium or Chrome on PATH."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


needs_browser = pytest.mark.skipif(executable() is None, reason="no chromium or chrome on PATH")


class Tab:
    """A page; ``console`` is what it has said. Commands and events are those of the DevTools protocol."""

    def __init__(self, commands, answers):
        self._commands, self._answers, self._sent, self._session = commands, answers, 0, None
        self.console: list[str] = []
        self._contexts: list[dict] = []  # where scripts run: in the page, and in its frames
        self._page = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=self._page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params) -> dict:
        """The answer to one command."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._next()).get("id") != self._sent:
            self._happened(answer.get("method"), answer.get("params", {}))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self) -> dict:
        read = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("the browser ended")
            read += byte
        return json.loads(read)

    def _happened(self, event: str | None, params: dict) -> None:
        match event:
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.console.append(f"{event}: {params}")
            case "Runtime.executionContextsCleared":
                self._contexts.clear()
            case "Runtime.executionContextCreated":
                self._contexts.append(params["context"])

    def look(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Give the window this size in CSS pixels, and the reader's preference for light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path, address: str = "") -> None:
        """Load a file, with what follows the # of its address, and wait until it and its pictures are there."""
        self.ask("Page.navigate", url=page.resolve().as_uri() + f"#{address}" * bool(address))
        self.evaluate("document.readyState == 'complete' || new Promise(done => addEventListener('load', done))")

    def evaluate(self, expression: str, *, in_frame: bool = False):
        """The value of JavaScript in the page, or in its frame; a promise's when it is kept."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        if in_frame:
            (asked["contextId"],) = (c["id"] for c in self._contexts if c["auxData"]["frameId"] != self._page)
        answer = self.ask("Runtime.evaluate", **asked)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")


# The browser reads commands from file 3 and answers to file 4.
AS_3_AND_4 = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


@contextmanager
def opened(profile: Path) -> Iterator[Tab]:
    """A browser with one tab and a fresh profile; it ends with the block."""
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]  # not 3 or 4 already
    for end in (theirs_in, theirs_out):
        os.close(end)
    ends = [str(end) for end in theirs]
    command = [sys.executable, "-S", "-c", AS_3_AND_4, *ends, str(executable()), *FLAGS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(command, pass_fds=theirs, stderr=subprocess.DEVNULL)
    for end in theirs:
        os.close(end)
    with os.fdopen(ours_out, "wb") as commands, os.fdopen(ours_in, "rb") as answers:
        try:
            yield Tab(commands, answers)
        finally:
            process.terminate()
            process.wait(timeout=20)


def run(page: Path, script: str, *, width: int = 1366, dark: bool = False, address: str = "", in_frame: bool = False):
    """What the body of an asynchronous function ``script`` returns in the page, and what its console says."""
    with TemporaryDirectory() as profile, opened(Path(profile)) as tab:
        tab.look(width, dark=dark)
        tab.open(page, address)
        return tab.evaluate(f"(async () => {{ {script} }})()", in_frame=in_frame), tab.console
