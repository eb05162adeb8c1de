"""Write the digits of ``python -m fnn demo`` from scikit-learn's copy: ``python -m experiments.demo_digits``.

It needs the extra ``sklearn``. Images and labels stay in scikit-learn's order. A pixel counts black dots, 0 to 16, as a
uint8.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import fnn.demo
from fnn import digits

FILE = Path(fnn.demo.__file__).with_name(digits.FILE)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64) and labels (1797,), uint8."""
    given = load_digits()
    return given.data.astype(np.uint8), given.target.astype(np.uint8)


if __name__ == "__main__":
    x, y = arrays()
    np.savez_compressed(FILE, x=x, y=y)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes; SHA256 in fnn/digits.py: {digits.digest(x, y)}")
