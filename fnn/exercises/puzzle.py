"""``puzzle``: ten ways to write an equation of back-propagation, one of which is wrong."""

import textwrap
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fnn.activations import Sigmoid, Tanh
from fnn.exercises.forms import ASSUMED, MISTAKES, RIGHT, Form
from fnn.exercises.graded import Graded
from fnn.initializers import init
from fnn.numbers import whole
from fnn.verify.network import network


@dataclass(frozen=True, repr=False)
class Puzzle:
    """The result of :func:`puzzle`: ``forms``, of which exactly one is wrong; ``str`` numbers them."""

    seed: int
    forms: tuple[Form, ...]

    def __str__(self) -> str:
        head = f"Puzzle {self.seed}: one of these is wrong.\n({ASSUMED}; examples are rows)"
        written = (textwrap.indent(str(form), "    ") for form in self.forms)
        return "\n".join([head, *(f"{number:2}. {text[4:]}" for number, text in enumerate(written, 1))])

    __repr__ = __str__

    def grade(self, number: Any) -> Graded:
        """Whether that one is wrong, with the report of ``fnn.verify`` on it.

        number: from 1 to the number of forms; None or ``...``: not filled in yet. Raises TypeError or ValueError for
        any other.
        """
        name = f"puzzle {self.seed}"
        if number is None or number is ...:
            return Graded(name, None, "not filled in yet")
        chosen = whole("number", number, len(self.forms), "forms")
        params = init(jax.random.key(0), (4, 5, 3), activation=Tanh(), output=Sigmoid())
        report = network(params, rules=self.forms[chosen - 1].rules)
        found = self.forms[chosen - 1] in MISTAKES.values()
        said = "is wrong, as you say" if found else "is right, look for another"
        return Graded(name, found, f"number {chosen} {said}: {report.verdict()}", report)


def puzzle(seed: int, *, size: int = 10) -> Puzzle:
    """Equations of back-propagation in code, drawn at random and each written in its own way: exactly one is wrong.

    seed: at least 1, the same for the same puzzle; size: how many, at most 30. The network has tanh in the hidden
    layers and a sigmoid at the output, and the loss is ½‖a − y‖². Raises TypeError or ValueError that names the
    argument.

    >>> drawn = puzzle(1)
    >>> print(drawn.grade(...))
    puzzle 1: not filled in yet
    >>> sum(bool(drawn.grade(number).ok) for number in range(1, 11))
    1
    """
    seed, size = whole("seed", seed), whole("size", size, len(RIGHT) + 1, "forms")
    random = np.random.default_rng(seed)
    forms = [RIGHT[i] for i in random.choice(len(RIGHT), size - 1, replace=False)]
    forms.insert(random.integers(size), list(MISTAKES.values())[random.integers(len(MISTAKES))])
    return Puzzle(seed, tuple(forms))
