"""Break an equation on purpose and see the checker's report: ``python -m experiments.find_the_mistake``.

The network is 6-5-4-3; ``--mistake`` chooses the mistake and ``--layer`` its place, so that a lecture can show a report
and ask for the mistake behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import tyro

import fnn
from fnn import RULES, verify
from fnn.exercises import MISTAKES

SIZES = (6, 5, 4, 3)


@dataclass(frozen=True)
class Options:
    """Break an equation on purpose and see what the checker says."""

    mistake: Literal[tuple(MISTAKES)] = "no-derivative"  # type: ignore[valid-type]
    layer: Literal[1, 2, 3] = 1
    """The layer, counted from the input: 3 for the output δ, 1 or 2 for the hidden ones."""
    batch: int = 17
    dtype: Literal["float64", "float32"] = "float64"


def broken(mistake: str, layer: int) -> fnn.Rules:
    """The rules with the mistake at one layer, which is known by the width of what comes out of it."""
    name, wrong = MISTAKES[mistake].rule, MISTAKES[mistake].function
    right = getattr(RULES, name)
    which = {"output_delta": lambda args: args[2], "hidden_delta": lambda args: args[2]}.get(name, lambda args: args[0])

    def rule(*args):
        return (wrong if which(args).shape[1] == SIZES[layer] else right)(*args)

    return RULES._replace(**{name: rule})


def problem(batch: int = 17) -> tuple[fnn.layers.Params, jax.Array, jax.Array]:
    """The network, tanh and a sigmoid at the end, and random data: x (batch, 6), y (batch, 3) in [0, 1)."""
    key_x, key_y = jax.random.split(jax.random.key(1))
    params = fnn.init(jax.random.key(0), SIZES, activation=fnn.Tanh(), output=fnn.Sigmoid())
    return params, jax.random.normal(key_x, (batch, SIZES[0])), jax.random.uniform(key_y, (batch, SIZES[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    options = tyro.cli(Options, args=arguments)
    name = MISTAKES[options.mistake].rule
    if (name == "output_delta" and options.layer != 3) or (name == "hidden_delta" and options.layer == 3):
        raise SystemExit(f"--layer: {options.mistake} is a mistake in {name}, which is not at layer {options.layer}")
    params, x, y = problem(options.batch)
    rules = broken(options.mistake, options.layer)
    report = verify.network(params, x, y, loss=fnn.SquaredError(), rules=rules, probes=False, dtype=options.dtype)
    print(report)
    print("\nreport.check() raises:\n")
    try:
        report.check()
    except verify.DerivationError as error:
        print(f"DerivationError: {error}")
    try:
        losses = training(params, x, y, rules)
        print(f"\nThe loss over 200 steps of gradient descent with this mistake: {losses[0]:.4f} → {losses[-1]:.4f}")
    except ValueError as error:  # a shape that cannot be right
        print(f"\nbackprop refuses to run it: {error}")


def training(params, x, y, rules, learning_rate: float = 0.5) -> list[float]:
    """The loss during training with these rules: it often falls in spite of the mistake."""
    optimizer = fnn.updates.sgd(learning_rate)
    step, state, losses = fnn.train.make_step(optimizer, rules=rules), optimizer.init(params), []
    for _ in range(200):
        params, state, loss = step(params, state, x, y)
        losses.append(float(loss))
    return losses


if __name__ == "__main__":
    main()
