"""The interactive page of ``fnn.explain(...).page(path)``: one HTML file with the lines of an explanation inside."""

import html
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from fnn.page.drawing import drawn
from fnn.page.steps import steps

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"  # no network
FRAME = "width:100%;height:48rem;border:1px solid #8886;border-radius:8px;resize:vertical"
FORMAT = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}<script type="application/json" id="network">{network}</script>
<script>
{script}</script>
</body>
</html>
"""


def written(explanation: Any, parts: Sequence[tuple[str, list]], rate: float) -> str:
    """The page of an ``Explanation`` as HTML; parts: its equations by part, in the order of the steps."""
    network = drawn(explanation, rate)
    network["steps"] = steps(explanation.params, parts, rate)
    text = json.dumps(network, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    functions = "".join(f"<li>{html.escape(said)}</li>" for said in explanation.functions)
    right = " right" if explanation.ok else ""
    checked = f'<p class="checked{right}">{html.escape(explanation.checked)}</p>' if explanation.checked else ""
    title = html.escape(explanation.title)
    return FORMAT.format(
        policy=POLICY,
        title=title,
        style=_file("page.css"),
        body=_file("page.html").format(title=title, functions=functions, checked=checked),
        network=text.replace("<", "\\u003c"),  # so that no name ends the script
        script=_file("page.js"),
    )


def framed(page: str, title: str) -> str:
    """The page inside a notebook: a frame that holds its text and can neither load anything nor reach the notebook."""
    return (
        f'<iframe title="{html.escape(title)}: step through the computation" sandbox="allow-scripts" style="{FRAME}" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )


def _file(name: str) -> str:
    return (resources.files("fnn.page") / name).read_text(encoding="utf-8")
