"""verify.stages: a chain of functions with hand-written pull-backs, each judged alone against autodiff."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stages_cases
from fnn.verify import DerivationError, Stage, stages
from stages_cases import (
    CHAIN,
    EXAMPLES,
    GAMMA,
    OUT,
    SKIP,
    WIDTH,
    WRONG,
    H,
    Q,
    V,
    X,
    check,
    entry,
    mistaken,
    normal,
    tampered,
)


def named(report):
    return {finding.name for finding in report.wrong}


@pytest.mark.parametrize("dtype", ["float64", "float32", None])
def test_a_right_transformer_block_passes(dtype):
    report = check(dtype=dtype)
    assert report.check() is report
    assert report.dtype == (dtype or "float64")
    assert len(report.findings) == 1 + 4 + 6 + 2 + 5
    assert all(finding.end_to_end < 1e-4 for finding in report.findings)
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("number", range(max(map(len, WRONG.values()))))
def test_mistakes_are_named_where_they_are_made(number, dtype):
    """Each case has one mistake in every stage, as long as there are more."""
    wrong = {stage: mistakes[number] for stage, mistakes in WRONG.items() if number < len(mistakes)}
    report = check(mistakes=[mistaken(stage, **mistake) for stage, (mistake, *_) in wrong.items()], dtype=dtype)
    assert named(report) == {f"{stage}: {leaf}" for stage, (_, leaves, _) in wrong.items() for leaf in leaves}
    for finding in report.wrong:
        assert finding.name.startswith(f"{finding.kind}: ")
        assert wrong[finding.kind][2] in finding.note or finding.name.endswith("['h']")


LEAVES = {"norm": [GAMMA, H], "attention": [OUT, V], "mlp": ["params_bar[2]", "x_bar"]}
CHANGES = {
    "the sign": lambda g: -g,
    "a factor 2 too large": lambda g: 2 * g,
    "a factor 1/2 too small": lambda g: g / 2,
    "it is zero": lambda g: 0 * g,
    "a single entry": lambda g: entry((-1,) * g.ndim, lambda value: 1.001 * value)(g),
    "not finite": lambda g: entry((0,) * g.ndim, lambda value: np.nan)(g),
    "shape": lambda g: g[None],
}


@pytest.mark.parametrize("note", CHANGES)
def test_tampered_cotangents_are_named_with_what_they_look_like(note):
    report = check(mistakes=[tampered(stage, leaves, CHANGES[note]) for stage, leaves in LEAVES.items()])
    assert named(report) == {f"{stage}: {leaf}" for stage, leaves in LEAVES.items() for leaf in leaves}
    assert all(note in finding.note for finding in report.wrong)


def test_a_transposed_square_weight_gradient_is_called_the_transpose():
    leaves = {"attention": [Q, OUT], "mlp": ["params_bar[0]"]}
    report = check(mistakes=[tampered(stage, leaves[stage], np.transpose) for stage in leaves])
    assert [finding.note for finding in report.wrong] == ["the transpose"] * 3


@pytest.mark.parametrize("index", list(np.ndindex(EXAMPLES, WIDTH)))
def test_any_single_wrong_entry_is_located(index):
    _, pullback = tampered("mlp", ["x_bar"], entry(index, lambda value: value + 1e-6))
    (wrong,) = stages([CHAIN["mlp"]._replace(pullback=pullback)], X).wrong
    assert wrong.index == index


def test_two_mistakes_in_different_stages_are_both_named():
    report = check(mistakes=[mistaken("mlp", residual=0), mistaken("norm", mean=0)])
    assert named(report) == {"mlp: x_bar", "norm: x_bar['h']"}
    with pytest.raises(DerivationError, match=r"(?s)mlp: x_bar.*norm: x_bar\['h'\]"):
        report.check()


def test_a_mistake_spoils_the_stages_before_it_end_to_end_and_none_after():
    report = check(mistakes=[mistaken("attention", values=0)])
    for finding in report.findings:
        spoiled = finding.kind in ("norm", "fork") and finding.name != f"norm: {SKIP}"
        assert finding.ok == (finding.name != f"attention: {H}")
        assert (finding.end_to_end > 1e-3) == (spoiled or not finding.ok)
    assert re.search("4 .*differ only because", report.verdict())


def test_two_calls_give_the_same_report():
    precision = jax.config.jax_default_matmul_precision
    assert str(check()) == str(check())
    assert jax.config.jax_default_matmul_precision == precision


def test_the_assertion_shows_the_report():
    stages(list(CHAIN.values()), X).check()
    with pytest.raises(DerivationError, match=r"(?s)1 of 2 cotangents is wrong.*bias: params_bar .*the sign"):
        stages([Stage("bias", lambda b, x: x + b, lambda b, x, y, g: (-g.sum(0), g), normal(3))], normal(2, 3)).check()


def embed_pullback(p, x, y, y_bar, none=None, rows=0):
    tokens = x["tokens"]
    return {"table": jnp.zeros_like(p["table"]).at[tokens + rows].add(y_bar), "shift": none}, {"tokens": none}


TOKENS = {"tokens": np.array([0, 2, 2, 5])}
EMBED = Stage(
    "embed", lambda p, x: p["table"][x["tokens"]], embed_pullback, {"table": normal(7, 3), "shift": np.arange(2)}
)


@pytest.mark.parametrize("none", [None, 0, np.zeros(2, jax.dtypes.float0)])
def test_cotangents_of_integers_are_not_compared_and_may_be_anything(none):
    report = stages([EMBED._replace(pullback=partial(embed_pullback, none=none)), CHAIN["fork"]], TOKENS)
    assert report.ok
    assert [finding.name for finding in report.findings] == ["fork: x_bar", "embed: params_bar['table']"]


def test_a_wrong_row_of_an_embedding_is_found():
    report = stages([EMBED._replace(pullback=partial(embed_pullback, rows=1))], TOKENS)
    assert named(report) == {"embed: params_bar['table']"}


def test_a_python_float_is_a_parameter_and_an_empty_tuple_none():
    power = Stage("scale", lambda c, x: c * x, lambda c, x, y, g: ((g * x).sum(), c * g), 2.5)
    assert stages([power, Stage("square", lambda _, x: x**2, lambda _, x, y, g: ((), 2 * x * g))], 3.0).ok


def test_a_random_key_may_be_a_parameter():
    def dropped(p, x):
        return x * jax.random.bernoulli(p["key"], 0.5, x.shape).astype(x.dtype)

    with jax.debug_key_reuse(False):
        stage = Stage("dropout", dropped, lambda p, x, y, g: ({"key": None}, dropped(p, g)), {"key": jax.random.key(3)})
        assert stages([stage], normal(20)).ok


def linear(p, x):
    return x @ p["w"]


def test_a_parameter_may_be_none():
    stage = Stage("linear", linear, lambda p, x, y, g: ({"b": None, "w": x.T @ g}, g @ p["w"].T))
    assert stages([stage._replace(params={"b": None, "w": normal(3, 3)})], normal(2, 3)).ok


def test_a_forgotten_floating_cotangent_is_wrong():
    stage = Stage("linear", linear, lambda p, x, y, g: ({"w": None}, g @ p["w"].T), {"w": normal(3, 3)})
    assert named(stages([stage], normal(2, 3))) == {"linear: params_bar['w']"}


@pytest.mark.parametrize(
    ("returned", "match"),
    [
        (lambda p, x, g: g, r"linear: it must return \(params_bar, x_bar\), got"),
        (lambda p, x, g: (), r"linear: it must return"),
        (lambda p, x, g: None, r"linear: it must return"),
        (lambda p, x, g: (x.T @ g, g), r"linear: params_bar must have the structure .*'w'.*, got"),
        (lambda p, x, g: ({"w": x.T @ g}, (g,)), r"linear: x_bar must have the structure"),
        (lambda p, x, g: ({"w": x.T @ g, "b": g}, g), r"linear: params_bar must have the structure"),
        (lambda p, x, g: ((), g), r"linear: params_bar must have the structure"),
    ],
)
def test_a_pullback_that_returns_something_else_is_a_finding(returned, match):
    report = stages([Stage("linear", linear, lambda p, x, y, g: returned(p, x, g), {"w": normal(3, 3)})], normal(2, 3))
    (finding,) = report.wrong
    assert re.match(match, f"{finding.name.split(':')[0]}: {finding.note}")
    assert not jax.config.jax_enable_x64


NO_STAGE = ("norm", stages_cases.norm, stages_cases.norm_pullback)
NO_CHAINS = [[], (), None, "norm", [stages_cases.norm], [NO_STAGE], CHAIN["norm"], np.ones(3), iter(CHAIN.values())]


@pytest.mark.parametrize("chain", [*NO_CHAINS, iter([])])
def test_what_is_no_chain_is_refused(chain):
    with pytest.raises(TypeError, match="chain: expected a list of Stages"):
        stages(chain, X)


def test_a_stage_that_runs_only_in_float32_is_judged_there_with_a_note():
    def kernel(_, x):
        if x.dtype != jnp.float32:
            raise TypeError("this kernel takes float32")
        return x**2

    report = stages([CHAIN["mlp"], Stage("kernel", kernel, lambda _, x, y, g: ((), 2 * x * g))], X)
    assert report.ok
    assert report.dtype == "float32"
    assert "judged in float32, because in float64 the code raises TypeError: this kernel takes float32" in str(report)


@pytest.mark.parametrize(("mean", "dtype"), [(1e3, "float64"), (1e6, "float64"), (30.0, "float32"), (1e3, "float32")])
@pytest.mark.parametrize("seed", range(3))
def test_a_layer_norm_at_a_large_mean_is_right(mean, dtype, seed):
    x = mean + np.random.default_rng(seed).normal(size=(EXAMPLES, WIDTH))
    assert stages([CHAIN["fork"], CHAIN["norm"]], x, dtype=dtype).ok


@pytest.mark.parametrize("x", [np.zeros_like(X), np.full_like(X, 0.1), np.eye(EXAMPLES, WIDTH)])
def test_constant_and_zero_inputs_are_no_false_alarm(x):
    assert check(x).ok


def softmax(_, x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(("scale", "dtype"), [(1, "float64"), (10, "float64"), (30, "float64"), (10, "float32")])
def test_a_softmax_of_large_scores_is_right(scale, dtype):
    stage = stages_cases.stage(softmax, lambda _, x, y, g: ((), y * (g - (y * g).sum(-1, keepdims=True))))
    for seed in range(8):
        x = scale * np.random.default_rng(seed).normal(size=(6, 5))
        assert not stages([stage], x, dtype=dtype).wrong


def test_relu_at_zero_agrees_with_the_one_of_jax():
    relu = Stage("relu", lambda _, x: jax.nn.relu(x), lambda _, x, y, g: ((), jnp.where(x > 0, g, 0)))
    assert stages([relu], np.array([-1.0, 0, -0.0, 2])).ok


def test_an_infinite_derivative_is_not_compared_and_the_rest_is():
    log = Stage("log", lambda _, x: jnp.log(x), lambda _, x, y, g: ((), g / x))
    report = stages([log], np.arange(3.0))
    assert report.ok
    assert "log: 1 value was not compared, because autodiff is not finite there" in str(report)
    wrong = log._replace(pullback=lambda _, x, y, g: ((), 2 * g / x))
    assert named(stages([wrong], np.arange(3.0))) == {"log: x_bar"}


def test_a_pullback_that_changes_its_cotangent_in_place_cannot_hide_a_mistake():
    def pullback(_, x, y, y_bar):
        y_bar["h"] = 2 * y_bar["h"]
        return (), {"h": 3 * y_bar["h"]}

    triple = Stage("triple", lambda _, x: {"h": 3 * x["h"]}, pullback)
    assert named(stages([triple], {"h": X})) == {"triple: x_bar['h']"}


def test_a_right_pullback_may_reuse_the_dict_of_its_cotangent():
    def pullback(_, x, y, y_bar):
        y_bar["h"] = 3 * y_bar["h"]
        return (), y_bar

    assert stages([Stage("triple", lambda _, x: {"h": 3 * x["h"]}, pullback)], {"h": X}).ok


def test_a_forward_that_changes_its_input_in_place_cannot_hide_that_y_was_taken_for_x():
    def square(_, x):
        x["h"] = x["h"] ** 2
        return x

    right = Stage("square", square, lambda _, x, y, g: ((), {"h": 2 * x["h"] * g["h"]}))
    wrong = right._replace(pullback=lambda _, x, y, g: ((), {"h": 2 * y["h"] * g["h"]}))
    x = {"h": normal(3)}
    assert stages([right], x).ok
    assert not stages([wrong], x).ok
