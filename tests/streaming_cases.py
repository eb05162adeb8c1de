"""Data to be streamed, and training with them."""

import threading

import jax
import numpy as np

import fnn
from fnn.train import fit
from fnn.train.loop import shuffle
from networks import drawn

LOSS = fnn.SoftmaxCrossEntropy()
KEY = 5
EXAMPLES, BATCH = 103, 6  # 17 steps, one example left out
EVERY_5_STEPS, AT_ONCE = 400, 1 << 20  # bytes of the chunks of ``shuffled``
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 3, EXAMPLES)
BYTES = np.clip(RANDOM.normal(60 + 50 * LABELS[:, None], 20, (EXAMPLES, 5)), 0, 255).astype(np.uint8)
FLOATS = (BYTES / 255).astype(np.float32)
TARGETS = np.eye(3, dtype=np.float32)[LABELS]
PARAMS, NORMED = drawn(), drawn(norm=True)
SGD = fnn.updates.momentum(0.1)


def train(data, params=PARAMS, **options):
    options = {"loss": LOSS, "epochs": 2, "batch_size": BATCH, "key": jax.random.key(KEY), "progress": False} | options
    return fit(params, data, SGD, **options)


def shuffled(epoch, x=BYTES, y=LABELS, batch=BATCH):
    """The mini-batches that ``fit`` takes of arrays, in one array that is used again and again."""
    place = np.empty((batch, *x.shape[1:]), x.dtype)
    for rows in shuffle(jax.random.key(KEY), epoch, len(x), batch):
        place[:] = x[rows]
        yield place, y[rows]


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("fnn-feed")}
