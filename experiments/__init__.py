"""Short programs that use fnn: run them from the repository's root, ``python -m experiments.NAME``."""

import time

STARTED = time.perf_counter()  # imported before anything slow: the experiments tell times since their start
