"""Build the documentation site into build/site: ``python -m experiments.site`` (extra ``docs``).

A warning is an error: a link or a reference that leads nowhere, a formula that cannot be rendered, a docstring that is
not as the site expects it. Nothing is fetched from the network. The notebooks are executed, which takes most of the
time.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OUT = ROOT / "build" / "site"


def build(out: Path = OUT, options: Sequence[str] = ()) -> int:
    """Sphinx's exit code, all pages made anew; the first is ``out``/index.html."""
    from sphinx.cmd.build import main

    code = main(
        ["-E", "-a", "-W", "--keep-going", "-n", "-q", "-b", "html", "-c", str(HERE), *options, str(ROOT), str(out)]
    )
    if code == 0:
        print(f"{out}/index.html")
    return code


if __name__ == "__main__":
    sys.exit(build(options=sys.argv[1:]))
