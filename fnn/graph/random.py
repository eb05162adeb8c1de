"""The arrows of a random graph."""

import jax
import numpy as np

from fnn.checks.arrays import prng_key
from fnn.numbers import whole


def drawn_arrows(key, neurons: int, arrows: int, inputs: int, outputs: int, generations: int) -> np.ndarray:
    """(M, 2) arrows between neurons numbered by generation; see ``Graph.random``."""
    prng_key(key)
    neurons, arrows = whole("neurons", neurons), whole("arrows", arrows)
    inputs, outputs, generations = whole("inputs", inputs), whole("outputs", outputs), whole("generations", generations)
    hidden, between = neurons - inputs - outputs, generations - 2
    if generations < 2 or hidden < between or (between == 0 and hidden > 0):
        raise ValueError(
            f"neurons, generations: expected at least one neuron in each of {generations} >= 2 generations, "
            f"got {hidden} besides the inputs and outputs; write generations={2 if hidden <= 0 else 3}"
        )
    random = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    sizes = np.array(
        [inputs, *(len(part) for part in np.array_split(np.arange(hidden), between or 1) if between), outputs]
    )
    first = np.concatenate([[0], np.cumsum(sizes)])
    generation = np.repeat(np.arange(generations), sizes)

    late = np.arange(inputs, neurons)
    before = generation[late] - 1
    needed = [np.stack([random.integers(first[before], first[before + 1]), late], axis=1)]
    lonely = np.setdiff1d(np.arange(neurons - outputs), needed[0][:, 0])
    needed.append(np.stack([lonely, random.integers(first[generation[lonely] + 1], neurons)], axis=1))
    pairs = np.concatenate(needed)
    most = int((sizes * (neurons - first[1:])).sum())
    if not len(pairs) <= arrows <= most:
        raise ValueError(f"arrows: expected {len(pairs)} to {most} for these neurons and generations, got {arrows}")
    return _decode(_fill(random, _encode(pairs, neurons), arrows, neurons, generation, first, most), neurons)


def _encode(pairs, neurons):
    return pairs[:, 0].astype(np.int64) * neurons + pairs[:, 1]


def _decode(codes, neurons):
    return np.stack(np.divmod(codes, neurons), axis=1)


def _fill(random, codes, arrows, neurons, generation, first, most):
    """``codes`` filled up to ``arrows`` distinct codes."""
    last = generation[-1]
    senders = first[last]  # neurons before the last generation
    while (missing := arrows - len(codes)) > 0:
        if 2 * arrows > most:  # too dense for rejection sampling
            source, target = np.nonzero(generation[:senders, None] < generation[None, :])
            new = random.permutation(source * neurons + target)
        else:
            source = random.integers(0, senders, 2 * missing)
            new = source * neurons + random.integers(first[generation[source] + 1], neurons)
        new = new[np.sort(np.unique(new, return_index=True)[1])]  # in drawing order
        codes = np.concatenate([codes, new[~np.isin(new, codes)][:missing]])
    return codes
