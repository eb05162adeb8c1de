"""The equations of back-propagation as students write them: many right ways, and many mistakes.

All are for tanh in the hidden layers, a sigmoid at the output, and the squared error ½‖a − y‖²; examples are rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp

from fnn.backward import RULES, Rules
from fnn.verify.grading.questions import with_mask

ARGUMENTS = {
    "output_delta": "loss, activation, z, a, y",
    "hidden_delta": "g, activation, z, a",
    "input_gradient": "delta, W",
    "weight_gradient": "delta, a_in",
    "bias_gradient": "delta",
}
NUMBERS = dict(zip(ARGUMENTS, ("(1)", "(2b)", "(2a)", "(3)", "(4)")))
ASSUMED = "tanh in the hidden layers, a sigmoid at the output; the loss is ½‖a − y‖²"


@dataclass(frozen=True)
class Form:
    """One way to write a rule of ``fnn.Rules``.

    rule: its name, such as "hidden_delta"; text: the expression that it returns, in the rule's arguments and ``jnp``.
    """

    rule: str
    text: str

    @cached_property
    def function(self) -> Callable:
        """What the text computes. The masks of dropout are applied to its result, where the rule has them."""
        written = eval(f"lambda {ARGUMENTS[self.rule]}: {self.text}", {"jnp": jnp})
        return with_mask(written) if self.rule in ("input_gradient", "weight_gradient") else written

    @property
    def rules(self) -> Rules:
        """``fnn.RULES`` with this form in place of its rule."""
        return RULES._replace(**{self.rule: self.function})

    def __str__(self) -> str:
        return f"def {self.rule}({ARGUMENTS[self.rule]}):  # {NUMBERS[self.rule]}\n    return {self.text}"


def _forms(rule: str, *texts: str) -> list[Form]:
    return [Form(rule, text) for text in texts]


RIGHT = [
    *_forms(
        "output_delta",
        "loss.gradient(a, y) * activation.derivative(z, a)",
        "(a - y) * activation.derivative(z, a)",
        "(a - y) * a * (1 - a)",
        "a * (a - y) * (1 - a)",
        "(a - y) * (a - a**2)",
        "-(y - a) * a * (1 - a)",
        "activation.pullback(a - y, z, a)",
    ),
    *_forms(
        "hidden_delta",
        "g * activation.derivative(z, a)",
        "g * (1 - a**2)",
        "g * (1 - a) * (1 + a)",
        "g - g * a**2",
        "g * (1 - jnp.tanh(z) ** 2)",
        "-g * (a**2 - 1)",
        "activation.pullback(g, z, a)",
    ),
    *_forms(
        "input_gradient",
        "delta @ W",
        "(W.T @ delta.T).T",
        "jnp.dot(delta, W)",
        'jnp.einsum("nj,ji->ni", delta, W)',
        "(delta[:, :, None] * W).sum(axis=1)",
    ),
    *_forms(
        "weight_gradient",
        "delta.T @ a_in",
        "(a_in.T @ delta).T",
        'jnp.einsum("nj,ni->ji", delta, a_in)',
        "sum(jnp.outer(d, a) for d, a in zip(delta, a_in))",
        "(delta[:, :, None] * a_in[:, None, :]).sum(axis=0)",
    ),
    *_forms(
        "bias_gradient",
        "delta.sum(axis=0)",
        "delta.T.sum(axis=1)",
        "sum(delta)",
        "jnp.ones(len(delta), delta.dtype) @ delta",
        "len(delta) * delta.mean(axis=0)",
    ),
]

MISTAKES: dict[str, Form] = {
    "no-derivative": Form("hidden_delta", "g"),
    "derivative-at-a": Form("hidden_delta", "g * activation.derivative(a, activation.value(a))"),
    "derivative-twice": Form("hidden_delta", "g * activation.derivative(z, a) ** 2"),
    "derivative-of-sigmoid": Form("hidden_delta", "g * a * (1 - a)"),
    "square-outside": Form("hidden_delta", "g * (1 - a) ** 2"),
    "square-of-z": Form("hidden_delta", "g * (1 - z**2)"),
    "sign": Form("hidden_delta", "-activation.pullback(g, z, a)"),
    "no-output-derivative": Form("output_delta", "loss.gradient(a, y)"),
    "derivative-of-tanh": Form("output_delta", "(a - y) * (1 - a**2)"),
    "error-turned-round": Form("output_delta", "(y - a) * a * (1 - a)"),
    "factor-two": Form("output_delta", "2 * loss.delta(activation, z, a, y)"),
    "mean-in-delta": Form("output_delta", "loss.delta(activation, z, a, y) / len(a)"),
    "absolute-weights": Form("input_gradient", "delta @ abs(W)"),
    "largest-term": Form("input_gradient", "(delta[:, :, None] * W).max(axis=1)"),
    "mean-over-neurons": Form("input_gradient", "(delta[:, :, None] * W).mean(axis=1)"),
    "one-entry": Form("weight_gradient", "(delta.T @ a_in).at[1, 2].set(0)"),
    "first-example": Form("weight_gradient", "delta[:1].T @ a_in[:1]"),
    "transposed": Form("weight_gradient", "a_in.T @ delta"),
    "summed-too-early": Form("weight_gradient", "jnp.outer(delta.sum(axis=0), a_in.sum(axis=0))"),
    "shifted-examples": Form("weight_gradient", "sum(jnp.outer(d, a) for d, a in zip(delta, a_in[::-1]))"),
    "wrong-axis": Form("bias_gradient", "delta.sum(axis=1)"),
    "not-summed": Form("bias_gradient", "delta[0]"),
    "mean-for-sum": Form("bias_gradient", "delta.mean(axis=0)"),
    "one-example-less": Form("bias_gradient", "sum(delta[1:])"),
}
