"""The report of the README, as a picture: ``python -m experiments.report_picture``.

The mistake is that of ``python -m experiments.find_the_mistake --mistake no-derivative --layer 2``. The picture is a
terminal with its own background, so it looks the same on a light page and on a dark one.
"""

from html import escape
from pathlib import Path

from experiments.find_the_mistake import broken, problem
from fnn import SquaredError, verify
from fnn.verify import Report

PICTURE = Path(__file__).parent / "gallery" / "report.svg"
BACKGROUND, PLAIN, GREEN, RED, GREY = "#14181f", "#dfe4ec", "#5fd38d", "#ff7b72", "#8b95a5"
WIDTH, LINE, MARGIN, CHARACTER = 760, 21, 22, 7.85  # pixels, at a font size of 13
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
Part = tuple[str, str]  # a text and its colour


def lines(report: Report) -> list[list[Part]]:
    """The report line by line, in parts of one colour each."""
    found: list[list[Part]] = [[(">>> ", GREY), ("fnn.verify.network(params, x, y, loss=loss, rules=mine)", PLAIN)], []]
    for finding in report.findings:
        mark, colour = ("ok   ", GREEN) if finding.ok else ("WRONG", RED)
        found.append([(mark + "  ", colour), (finding.name, PLAIN if finding.ok else RED)])
    found += [[], [(report.verdict(), PLAIN)]]
    for finding in report.wrong:
        found.append([("looks like: ", GREY), (finding.note, RED)])
    return found


def drawn(report: Report) -> str:
    """The picture, as SVG."""
    rows = lines(report)
    height = 2 * MARGIN + LINE * len(rows) - 6
    texts = []
    for number, row in enumerate(rows):
        x = float(MARGIN)
        for text, colour in row:
            y = MARGIN + LINE * number + 12
            texts.append(f'<text x="{x:.1f}" y="{y}" fill="{colour}" xml:space="preserve">{escape(text)}</text>')
            x += CHARACTER * len(text)
    title = escape(f"A report of fnn.verify.network: {report.verdict()}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">\n'
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{BACKGROUND}"/>\n'
        f'<g font-family="{FONT}" font-size="13">\n' + "\n".join(texts) + "\n</g>\n</svg>\n"
    )


def picture() -> str:
    """The picture of the mistake in layer 2."""
    params, x, y = problem()
    return drawn(verify.network(params, x, y, loss=SquaredError(), rules=broken("no-derivative", 2), probes=False))


def main() -> None:
    PICTURE.write_text(picture(), encoding="utf-8")
    print(f"The picture is in {PICTURE}.")


if __name__ == "__main__":
    main()
