"""A training program for the tests that kill it: ``python interrupted.py DIRECTORY`` goes on where it was.

It says "begun", then a line for every epoch, and "file" whenever it touches one of its files, some 40 times an epoch:
so it can be killed at any point of its saving. At last it says "ended".

``python interrupted.py DIRECTORY EPOCHS LOG`` contends for the directory with others of its kind: it waits while
another has it, and writes a log.
"""

import os
import sys
import time

import jax
import numpy as np
import optax

import fnn

EPOCHS = 150
OPTIMIZER = optax.adam(1e-2)


def train(directory, epochs=EPOCHS, callback=None, log=None):
    """A run whose epochs take a few milliseconds, so that it is saving most of the time."""
    random = np.random.default_rng(0)
    data = fnn.data.Dataset(random.integers(0, 256, (64, 20)).astype(np.uint8), random.integers(0, 3, 64))
    params = fnn.init(jax.random.key(0), (20, 30, 3), activation=fnn.Tanh(), batch_norm="full")
    return fnn.train.fit(
        params, data, OPTIMIZER, loss=fnn.SoftmaxCrossEntropy(), epochs=epochs, batch_size=8, key=jax.random.key(1),
        dropout=fnn.Dropout(0.8), progress=False, callback=callback, checkpoint=directory,
        log=log,
    )  # fmt: skip


def say(line):
    os.write(1, f"{line}\n".encode())  # in one piece, from whichever thread


def say_what_is_touched(directory):
    def hook(event, arguments):
        if event in ("open", "os.mkdir", "os.remove", "os.rename") and directory in str(arguments[0]):
            say("file")

    sys.addaudithook(hook)


def contend(directory, epochs, log):
    """Train as soon as no other process does."""
    while True:
        try:
            return train(directory, epochs, lambda state: say(state.epoch), log)
        except BlockingIOError:
            time.sleep(0.01)


if __name__ == "__main__":
    say("begun")
    say_what_is_touched(sys.argv[1])
    if len(sys.argv) == 2:
        train(sys.argv[1], callback=lambda state: say(state.epoch))
    else:
        contend(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    say("ended")
