"""A headless Chromium that opens a page, runs a script in it, and says what the page and its console say."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
REPORT = """<script>
addEventListener("load", () => setTimeout(async () => {
  let said;
  try { said = await (async () => { %s })(); } catch (error) { said = "error: " + error; }
  parent.postMessage(JSON.stringify(said ?? null), "*");
}, 60));
</script></body>"""
FRAME = """<body><iframe src="%s" style="border:0;width:%dpx;height:900px"></iframe><pre id="said"></pre><script>
addEventListener("message", (event) => { document.getElementById("said").textContent = event.data; });
</script></body>"""


NOTEBOOK = """<html><body>%s<pre id="said"></pre><script>
addEventListener("message", (event) => { document.getElementById("said").textContent = event.data; });
</script></body></html>"""


def run_in_notebook(output: str, script: str, folder: Path, **look):
    """The same as :func:`run`, in the frame that stands in a notebook's HTML output; ``folder`` for what is written."""
    outside = folder / "notebook.html"
    outside.write_text(NOTEBOOK % output.replace(escape("</body>"), escape(REPORT % script)), encoding="utf-8")
    return said_by(outside, **look)


def run(page: Path, script: str, *, width: int = 1366, dark: bool = False, address: str = ""):
    """What the body of a function ``script`` returns in the page, and the console's messages.

    width: of the window, in pixels, also below Chromium's least; address: what follows the # of the page's address.
    """
    inside, outside = page.with_suffix(".driven.html"), page.with_suffix(".frame.html")
    inside.write_text(page.read_text(encoding="utf-8").replace("</body>", REPORT % script), encoding="utf-8")
    outside.write_text(FRAME % (f"{inside.name}#{address}", width))
    return said_by(outside, width=width, dark=dark)


def said_by(page: Path, *, width: int = 1366, dark: bool = False):
    """What stands in the page's element "said" when it has run, from JSON, and the console's messages."""
    command = [
        CHROMIUM, "--disable-features=IsolateSandboxedIframes",  # virtual time does not wait for another process
        "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--window-size={max(width, 500)},900",
        f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=3000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    return json.loads(unescape(found[1])), re.findall(r":CONSOLE[^\n]*", done.stderr)
