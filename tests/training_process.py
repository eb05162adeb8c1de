"""One process of a training run, as a user would write it: test_parallel.py starts several.

python tests/training_process.py FILE EPOCHS CHECKPOINT [ADDRESS PROCESSES ID]: trains over all devices, says every
epoch, and process 0 leaves parameters and losses in FILE (.npz); CHECKPOINT: a directory, or "" for none.
"""

import sys

import numpy as np


def main(file, epochs, checkpoint, address=None, processes="1", process="0"):
    import jax

    import fnn

    if address is not None:
        fnn.parallel.initialize(address, int(processes), int(process))
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 5)).astype(np.float32)
    params = fnn.init(jax.random.key(0), (5, 12, 3), activation=fnn.Tanh(), batch_norm="full")
    first = jax.process_index() == 0

    def report(state):
        if first:
            print(f"epoch {state.epoch}", flush=True)

    run = fnn.train.fit(
        params, (x, random.integers(0, 3, 80).astype(np.int32)), fnn.updates.momentum(0.1, 0.9),
        loss=fnn.SoftmaxCrossEntropy(), epochs=int(epochs), batch_size=8, key=jax.random.key(1), callback=report,
        validation=(x, np.zeros(80, np.int32)), dropout=fnn.Dropout(0.9), mesh=fnn.parallel.data_mesh(),
        checkpoint=checkpoint or None, every=2,
    )  # fmt: skip
    if first:
        losses = np.array([[record["loss"], record["validation_loss"]] for record in run.history])
        np.savez(file, losses, *jax.tree.leaves(run.params))


if __name__ == "__main__":
    main(*sys.argv[1:])
