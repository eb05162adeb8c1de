"""Row N6 on all devices of this process: how many, and the disagreement. ``python -m experiments.equations.devices``.

JAX settles how many devices a process has when it first computes, so the row starts this program with several.
"""

import jax

from experiments.equations.notes import over_devices

if __name__ == "__main__":
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        print(len(jax.devices()), over_devices())
