"""Short programs that use fnn: run them from the root of the repository with ``python -m experiments.NAME``."""

import sys
import time

STARTED = time.perf_counter()  # imported before anything slow: the experiments tell times since their start

if sys.argv[:1] == ["-m"]:  # so it is while Python looks for the module to run: not in a test that imports this
    from experiments import cache

    cache.keep_compiled()
