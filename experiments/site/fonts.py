"""The font for mathematics that the site ships: STIX Two Math (SIL Open Font License), cut to what formulas use.

MathML takes the height of brackets, the line of a fraction and the place of a prime from a font's MATH table, which the
fonts for text do not have.
"""

from importlib import resources
from pathlib import Path

RANGES = (  # of code points
    (0x20, 0x7E), (0xA0, 0xFF), (0x300, 0x338), (0x391, 0x3F6),  # Latin, accents, Greek
    (0x2010, 0x2044), (0x2061, 0x2064), (0x2070, 0x209C), (0x20D0, 0x20EF),  # primes, dashes, raised and lowered
    (0x2100, 0x214F), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2308, 0x230B), (0x23B4, 0x23DF),  # letters, arrows, signs
    (0x25A0, 0x25EF), (0x27C0, 0x27EF), (0x2A00, 0x2A2F),  # shapes, brackets, operators
    (0x1D400, 0x1D503), (0x1D538, 0x1D56B), (0x1D6A4, 0x1D7FF),  # bold, italic, script and double-struck letters
)  # fmt: skip
NAME = "mathematics.woff"


def write(path: Path) -> None:
    """The font with the characters of RANGES, their variants and its MATH table."""
    from fontTools import subset

    options = subset.Options(flavor="woff", layout_features=["ssty", "flac", "dtls"], notdef_outline=True)
    whole = resources.as_file(resources.files("ziamath.fonts") / "STIXTwoMath-Regular.ttf")
    with whole as source, subset.load_font(str(source), options) as font:
        cut = subset.Subsetter(options)
        cut.populate(unicodes=[point for low, high in RANGES for point in range(low, high + 1)])
        cut.subset(font)
        subset.save_font(font, str(path), options)


def write_static(app, exception) -> None:
    if exception is None and app.builder.format == "html":
        write(Path(app.outdir) / "_static" / NAME)


def setup(app) -> None:
    app.connect("build-finished", write_static)
