"""Training: whole epochs in one compiled loop, with gradients from ``fnn.backward`` and any optax optimizer.

An epoch is one ``lax.scan`` over mini-batches. The images stay as they are stored, bytes for MNIST, until the
loop turns a mini-batch into floats; the order of the examples comes from the host, a pure function of the key
and the epoch. The examples that do not fill the last mini-batch of an epoch's shuffle are left out of that
epoch (a shorter batch would compile a second program, a padded one would spoil batch statistics); another
shuffle leaves out others.
"""

from fnn.train.evaluation import evaluate, predict
from fnn.train.fit import Progress, Record, fit
from fnn.train.fit_many import fit_many
from fnn.train.loop import make_step
from fnn.train.nonfinite import NonFinite

__all__ = ["NonFinite", "Record", "Progress", "evaluate", "fit", "fit_many", "make_step", "predict"]
