"""verify.stages: a chain of functions with hand-written pull-backs, each judged alone against autodiff."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.verify import DerivationError, Stage, assert_stages, stages

EXAMPLES, WIDTH, EPS = 5, 4, 1e-5
random = np.random.default_rng(7)


def normal(*shape):
    return random.normal(size=shape)


# A transformer block: x -> {skip, h} -> layer norm of h -> attention -> skip + h -> residual MLP.


def fork(_, x):
    return {"skip": x, "h": x}


def fork_pullback(_, x, y, y_bar, skip=1, h=1):
    return (), skip * y_bar["skip"] + h * y_bar["h"]


def standardised(h):
    s = jnp.sqrt(jnp.var(h, axis=-1, keepdims=True) + EPS)
    return (h - jnp.mean(h, axis=-1, keepdims=True)) / s, s


def norm(p, x):
    return {"skip": x["skip"], "h": p["gamma"] * standardised(x["h"])[0] + p["beta"]}


def norm_pullback(p, x, y, y_bar, mean=1, variance=1, power=1, scaled=True, axis=0, skip=1, wrt="x_hat"):
    x_hat, s = standardised(x["h"])
    seen = {"x_hat": x_hat, "x": x["h"], "y": y["h"]}[wrt]
    g = y_bar["h"] * (p["gamma"] if scaled else 1)
    by_mean = mean * jnp.mean(g, axis=-1, keepdims=True)
    by_variance = variance * x_hat * jnp.mean(g * x_hat, axis=-1, keepdims=True)
    params_bar = {"gamma": jnp.sum(y_bar["h"] * seen, axis=0), "beta": jnp.sum(y_bar["h"], axis=axis)}
    return params_bar, {"skip": skip * y_bar["skip"], "h": (g - by_mean - by_variance) / s**power}


def weights(p, h):
    q, k = h @ p["Q"], h @ p["K"]
    return q, k, jax.nn.softmax(q @ k.T / np.sqrt(WIDTH).astype(h.dtype))


def attention(p, x):
    *_, A = weights(p, x["h"])
    return {"skip": x["skip"], "h": A @ (x["h"] @ p["V"]) @ p["O"]}


def attention_pullback(p, x, y, y_bar, scaled=True, full=True, K_from="q", keys=1, values=1, skip=1, swap=False):
    h, g = x["h"], y_bar["h"]
    q, k, A = weights(p, h)
    v = h @ p["V"]
    A_bar = g @ p["O"].T @ v.T
    V_bar = A.T @ (g @ p["O"].T)
    S_bar = A * (A_bar - jnp.sum(A * A_bar, axis=-1, keepdims=True)) if full else A * (1 - A) * A_bar
    S_bar = S_bar / (np.sqrt(WIDTH).astype(h.dtype) if scaled else 1)
    q_bar, k_bar = S_bar @ k, S_bar.T @ (q if K_from == "q" else k)
    params_bar = {"Q": h.T @ q_bar, "K": h.T @ k_bar, "V": h.T @ V_bar, "O": (A @ v).T @ g}
    if swap:
        params_bar["Q"], params_bar["K"] = params_bar["K"], params_bar["Q"]
    h_bar = q_bar @ p["Q"].T + keys * k_bar @ p["K"].T + values * V_bar @ p["V"].T
    return params_bar, {"skip": skip * y_bar["skip"], "h": h_bar}


def add_pullback(_, x, y, y_bar, skip=1):
    return (), {"skip": skip * y_bar, "h": y_bar}


def mlp(p, x):
    W1, b1, W2, b2 = p
    return x + jnp.tanh(x @ W1 + b1) @ W2 + b2


def mlp_pullback(p, x, y, y_bar, residual=1, slope=True, axis=0, back=lambda W: W.T):
    W1, b1, W2, _ = p
    a = jnp.tanh(x @ W1 + b1)
    delta = y_bar @ W2.T * (1 - a**2 if slope else 1)
    return (x.T @ delta, delta.sum(0), a.T @ y_bar, y_bar.sum(axis)), residual * y_bar + delta @ back(W1)


W = {name: normal(WIDTH, WIDTH) for name in "QKVO"}
CHAIN = {
    "fork": Stage("fork", fork, fork_pullback),
    "norm": Stage("norm", norm, norm_pullback, {"gamma": normal(WIDTH), "beta": normal(WIDTH)}),
    "attention": Stage("attention", attention, attention_pullback, W),
    "add": Stage("add", lambda _, x: x["skip"] + x["h"], add_pullback),
    "mlp": Stage("mlp", mlp, mlp_pullback, (normal(WIDTH, WIDTH), normal(WIDTH), normal(WIDTH, WIDTH), normal(WIDTH))),
}
X = normal(EXAMPLES, WIDTH)


def check(*mistakes, x=X, **options):
    """The block with some stages' pull-backs replaced."""
    chain = dict(CHAIN)
    for name, pullback in mistakes:
        chain[name] = chain[name]._replace(pullback=pullback)
    return stages(list(chain.values()), x, **options)


def tampered(stage, leaf, change):
    """A pull-back that is right but for one leaf of what it returns."""

    def pullback(*args):
        tree = dict(zip(("params_bar", "x_bar"), CHAIN[stage].pullback(*args)))
        return tuple(
            jax.tree_util.tree_map_with_path(
                lambda path, g, part=part: change(g) if part + jax.tree_util.keystr(path) == leaf else g, value
            )
            for part, value in tree.items()
        )

    return stage, pullback


GAMMA, BETA, H, SKIP = "params_bar['gamma']", "params_bar['beta']", "x_bar['h']", "x_bar['skip']"
Q, K, V, OUT = (f"params_bar['{name}']" for name in "QKVO")
WRONG = [  # stage, what is done wrong, the cotangents that are wrong, what the note must say
    ("norm", {"mean": 0}, [H], ""),
    ("norm", {"variance": 0}, [H], ""),
    ("norm", {"variance": -1}, [H], ""),
    ("norm", {"power": 2}, [H], ""),
    ("norm", {"scaled": False}, [H], ""),
    ("norm", {"axis": 1}, [BETA], "shape"),
    ("norm", {"axis": (0, 1)}, [BETA], "shape"),
    ("norm", {"skip": 0}, [SKIP], "zero"),
    ("norm", {"wrt": "x"}, [GAMMA], ""),
    ("norm", {"wrt": "y"}, [GAMMA], ""),
    ("attention", {"scaled": False}, [Q, K, H], "a factor 2"),
    ("attention", {"full": False}, [Q, K, H], ""),
    ("attention", {"K_from": "k"}, [K, H], ""),
    ("attention", {"keys": 0}, [H], ""),
    ("attention", {"values": 0}, [H], ""),
    ("attention", {"swap": True}, [Q, K], ""),
    ("attention", {"skip": -1}, [SKIP], "sign"),
    ("fork", {"skip": 0}, ["x_bar"], ""),
    ("fork", {"h": 0}, ["x_bar"], ""),
    ("add", {"skip": 0}, [SKIP], "zero"),
    ("add", {"skip": 2}, [SKIP], "a factor 2 too large"),
    ("mlp", {"residual": 0}, ["x_bar"], ""),
    ("mlp", {"residual": 0.999}, ["x_bar"], ""),
    ("mlp", {"back": lambda W: W}, ["x_bar"], ""),
    ("mlp", {"slope": False}, ["params_bar[0]", "params_bar[1]", "x_bar"], ""),
    ("mlp", {"axis": 1}, ["params_bar[3]"], "shape"),
]
LEAVES = [
    ("norm", GAMMA),
    ("norm", H),
    ("attention", OUT),
    ("attention", V),
    ("mlp", "params_bar[2]"),
    ("mlp", "x_bar"),
]
CHANGES = [
    (lambda g: -g, "the sign"),
    (lambda g: 2 * g, "a factor 2 too large"),
    (lambda g: g / 2, "a factor 1/2 too small"),
    (lambda g: 0 * g, "it is zero"),
    (lambda g: g.at[(-1,) * g.ndim].multiply(1.001), "a single entry"),
    (lambda g: g.at[(0,) * g.ndim].set(jnp.nan), "not finite"),
    (lambda g: g[None], "shape"),
]


def named(report):
    return {finding.name for finding in report.wrong}


@pytest.mark.parametrize(
    "dtype", ["float64", *(pytest.param(other, marks=pytest.mark.slow) for other in ("float32", None))]
)
def test_a_right_transformer_block_passes(dtype):
    report = check(dtype=dtype)
    assert report.check() is report
    assert report.dtype == (dtype or "float64")
    assert len(report.findings) == 1 + 4 + 6 + 2 + 5
    assert all(finding.end_to_end < 1e-4 for finding in report.findings)
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("stage", "mistake", "leaves", "note"), WRONG)
def test_a_mistake_is_named_where_it_is_made(stage, mistake, leaves, note, dtype):
    report = check((stage, partial(CHAIN[stage].pullback, **mistake)), dtype=dtype)
    assert named(report) == {f"{stage}: {leaf}" for leaf in leaves}
    assert all(note in finding.note for finding in report.wrong if finding.name[-5:] != "['h']")
    assert {finding.kind for finding in report.wrong} == {stage}


@pytest.mark.parametrize(("stage", "leaf"), LEAVES)
@pytest.mark.parametrize(("change", "note"), CHANGES)
def test_one_tampered_cotangent_is_named_with_what_it_looks_like(stage, leaf, change, note):
    (wrong,) = check(tampered(stage, leaf, change)).wrong
    assert wrong.name == f"{stage}: {leaf}"
    assert note in wrong.note


@pytest.mark.parametrize(("stage", "leaf"), [("attention", Q), ("attention", OUT), ("mlp", "params_bar[0]")])
def test_a_transposed_square_weight_gradient_is_called_the_transpose(stage, leaf):
    assert [f.note for f in check(tampered(stage, leaf, jnp.transpose)).wrong] == ["the transpose"]


@pytest.mark.parametrize("entry", list(np.ndindex(EXAMPLES, WIDTH)))
def test_any_single_wrong_entry_is_located(entry):
    (wrong,) = check(tampered("mlp", "x_bar", lambda g: g.at[entry].add(1e-6))).wrong
    assert wrong.index == entry


def test_two_mistakes_in_different_stages_are_both_named():
    report = check(("mlp", partial(mlp_pullback, residual=0)), ("norm", partial(norm_pullback, mean=0)))
    assert named(report) == {"mlp: x_bar", "norm: x_bar['h']"}
    with pytest.raises(DerivationError, match=r"(?s)mlp: x_bar.*norm: x_bar\['h'\]"):
        report.check()


def test_a_mistake_spoils_the_stages_before_it_end_to_end_and_none_after():
    report = check(("attention", partial(attention_pullback, values=0)))
    for finding in report.findings:
        spoiled = finding.kind in ("norm", "fork") and finding.name != f"norm: {SKIP}"
        assert finding.ok == (finding.name != f"attention: {H}")
        assert (finding.end_to_end > 1e-3) == (spoiled or not finding.ok)
    assert re.search("4 .*differ only because", report.verdict())


def test_two_calls_give_the_same_report():
    assert str(check()) == str(check())
    assert jax.config.jax_default_matmul_precision is None


def test_the_assertion_shows_the_report():
    assert_stages(list(CHAIN.values()), X)
    with pytest.raises(DerivationError, match=r"(?s)1 of 2 cotangents is wrong.*bias: params_bar .*the sign"):
        assert_stages([Stage("bias", lambda b, x: x + b, lambda b, x, y, g: (-g.sum(0), g), normal(3))], normal(2, 3))


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
        (lambda p, x, g: g, r"linear: pullback must return \(params_bar, x_bar\), got float"),
        (lambda p, x, g: (), r"linear: pullback must return"),
        (lambda p, x, g: None, r"linear: pullback must return"),
        (lambda p, x, g: (x.T @ g, g), r"linear: params_bar must have the structure .*'w'.*, got"),
        (lambda p, x, g: ({"w": x.T @ g}, (g,)), r"linear: x_bar must have the structure"),
        (lambda p, x, g: ({"w": x.T @ g, "b": g}, g), r"linear: params_bar must have the structure"),
        (lambda p, x, g: ((), g), r"linear: params_bar must have the structure"),
    ],
)
def test_a_pullback_that_returns_something_else_is_an_error_with_its_name(returned, match):
    with pytest.raises(ValueError, match=match):
        stages([Stage("linear", linear, lambda p, x, y, g: returned(p, x, g), {"w": normal(3, 3)})], normal(2, 3))
    assert not jax.config.jax_enable_x64


NO_CHAINS = [[], (), None, "norm", [norm], [("norm", norm, norm_pullback)], CHAIN["norm"], np.ones(3), iter([])]


@pytest.mark.parametrize("chain", [*NO_CHAINS, iter(CHAIN.values())])
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
    assert "judged in float32, for in float64 the code raises TypeError: this kernel takes float32" in str(report)


@pytest.mark.parametrize(("mean", "dtype"), [(1e3, "float64"), (1e6, "float64"), (30.0, "float32"), (1e3, "float32")])
@pytest.mark.parametrize("seed", range(3))
def test_a_layer_norm_at_a_large_mean_is_right(mean, dtype, seed):
    x = mean + np.random.default_rng(seed).normal(size=(EXAMPLES, WIDTH))
    assert stages([CHAIN["fork"], CHAIN["norm"]], x, dtype=dtype).ok


@pytest.mark.parametrize("x", [np.zeros((3, WIDTH)), np.full((3, WIDTH), 0.1), np.eye(3, WIDTH)])
def test_constant_and_zero_inputs_are_no_false_alarm(x):
    assert check(x=x).ok


@pytest.mark.parametrize(("scale", "dtype"), [(1, "float64"), (10, "float64"), (30, "float64"), (10, "float32")])
def test_a_softmax_of_large_scores_is_right(scale, dtype):
    def softmax(_, x):
        e = jnp.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def pullback(_, x, y, g):
        return (), y * (g - (y * g).sum(-1, keepdims=True))

    for seed in range(8):
        x = scale * np.random.default_rng(seed).normal(size=(6, 5))
        assert not stages([Stage("softmax", softmax, pullback)], x, dtype=dtype).wrong


def test_relu_at_zero_agrees_with_the_one_of_jax():
    relu = Stage("relu", lambda _, x: jax.nn.relu(x), lambda _, x, y, g: ((), jnp.where(x > 0, g, 0)))
    assert stages([relu], np.array([-1.0, 0, -0.0, 2])).ok


def test_an_infinite_derivative_is_reported():
    log = Stage("log", lambda _, x: jnp.log(x), lambda _, x, y, g: ((), g / x))
    assert named(stages([log], np.arange(3.0))) == {"log: x_bar"}


def test_a_pullback_that_changes_its_cotangent_in_place_cannot_hide_a_mistake():
    def pullback(_, x, y, y_bar):
        y_bar["h"] = 2 * y_bar["h"]
        return (), {"h": 3 * y_bar["h"]}

    assert named(stages([Stage("triple", lambda _, x: {"h": 3 * x["h"]}, pullback)], {"h": X})) == {
        "triple: x_bar['h']"
    }


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
