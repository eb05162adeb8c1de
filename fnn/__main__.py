"""``python -m fnn`` prints what is installed and where to start; ``python -m fnn demo`` shows the package in action."""

import argparse
import platform
import sys
from collections import Counter
from collections.abc import Sequence

import jax

from fnn.demo.show import show
from fnn.version import VERSION

START = """\
Start here:
  python -m fnn demo             train on handwritten digits, and see a wrong equation named, in ten seconds
  python -m fnn.verify FILE.py   run the checks of derivatives in a file
  help(fnn.verify.network)       check every equation of a network, or your own instead
  help(fnn.train.fit)            train"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fnn", description=__doc__.replace("``", ""))
    parser.add_argument("command", nargs="?", choices=["demo"], help="show the package at work, on handwritten digits")
    if parser.parse_args(argv).command == "demo":
        show()
    else:
        print(f"{installed()}\n\n{START}")
    return 0


def installed() -> str:
    """The versions, and the devices that JAX computes on."""
    devices = Counter(f"{device.platform} ({device.device_kind})" for device in jax.devices())
    counted = ", ".join(f"{count} {kind}" for kind, count in devices.items()).replace("cpu (cpu)", "cpu")
    return f"fnn {VERSION}, jax {jax.__version__}, Python {platform.python_version()}\ndevices: {counted}"


if __name__ == "__main__":
    sys.exit(main())
