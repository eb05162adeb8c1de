"""Training: whole epochs in one compiled loop, with gradients from ``fnn.backward`` and any optax optimizer.

An epoch is one ``lax.scan`` over mini-batches. Images stay as stored, bytes for MNIST, until the loop converts a
mini-batch to floats. The order of the examples is computed on the host, as a pure function of the key and the epoch.
Examples that do not fill the last mini-batch of an epoch are dropped for that epoch: a shorter batch would compile a
second program, and a padded one would distort batch statistics. Each shuffle drops different ones.
"""

from fnn.runs import Record, Run, State
from fnn.train.epochs import Interrupted
from fnn.train.evaluation import evaluate, predict
from fnn.train.fit import fit
from fnn.train.fit_many import fit_many
from fnn.train.loop import make_step
from fnn.train.nonfinite import NonFinite
from fnn.train.watch import Progress

__all__ = [  # as the site lists them
    "fit",
    "Run",
    "predict",
    "evaluate",
    "fit_many",
    "make_step",
    "Progress",
    "Record",
    "State",
    "Interrupted",
    "NonFinite",
]
