"""What strangers tried on the checker: wrong derivatives that must not pass, right ones that must not be accused."""

import itertools
import pickle
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn import verify
from fnn.verify import Stage
from problems import and_slow

RULES, LOSS = fnn.RULES, fnn.SquaredError()
ONES = np.ones(3)


def squares(w):
    return (w**2).sum()


def params_of(activation, output=None, sizes=(3, 4, 2)):
    return fnn.init(jax.random.key(0), sizes, activation=activation, output=output or fnn.Identity())


# -- small inputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-17, 1e-100, 5e-6, 1.0, 1e100])
def test_a_wrong_gradient_of_any_size_is_found(size):
    assert not verify.gradient(lambda w: -2 * w, squares, size * ONES).ok
    assert verify.gradient(lambda w: 2 * w, squares, size * ONES).ok


def test_so_is_one_in_float32():
    w = np.float32(5e-6) * np.ones(3, np.float32)
    assert not verify.gradient(lambda w: 2.05 * w, squares, w, dtype="float32").ok
    assert verify.gradient(lambda w: 2 * w, squares, w, dtype="float32").ok


@pytest.mark.parametrize("factor", [0, -2e19, 1e19])
def test_a_wrong_leaf_beside_a_large_one_is_found(factor):
    tree = {"q": 1.6e-19 * np.ones(2), "w": ONES}

    def cost(p):
        return 1e19 * squares(p["q"]) + squares(p["w"])

    (wrong,) = verify.gradient(lambda p: {"q": factor * p["q"], "w": 2 * p["w"]}, cost, tree).wrong
    assert wrong.name == "params['q']"
    assert verify.gradient(lambda p: {"q": 2e19 * p["q"], "w": 2 * p["w"]}, cost, tree).ok


def test_a_tiny_leaf_beside_an_ordinary_one_is_judged_by_its_own_size():
    tree = {"q": 1e-17 * np.ones(2), "w": ONES}

    def cost(p):
        return squares(p["q"]) + squares(p["w"])

    assert not verify.gradient(lambda p: {"q": -2 * p["q"], "w": 2 * p["w"]}, cost, tree).ok


@dataclass(frozen=True)
class Square(fnn.Activation):
    """z², with a derivative of a given factor."""

    factor: float = 2.0

    def value(self, z):
        return z * z

    def derivative(self, z, a):
        return self.factor * z


def test_tiny_weights_are_no_kink():
    for factor, right in ((2.0, True), (-2.0, False)):
        params = jax.tree.map(lambda leaf: leaf * 1e-17, params_of(Square(factor)))
        x, y = np.ones((5, 3), np.float32), np.ones((5, 2), np.float32)
        report = verify.network(params, x, y, loss=LOSS, probes=False)
        assert report.ok == right, report


# -- functions that are not what they seem ---------------------------------------------------------------------


def test_a_rule_that_differs_from_call_to_call_is_a_finding():
    random = np.random.default_rng(0)

    def noisy(w):
        return 2 * w * (1 + 5e-4 * random.normal(size=w.shape))

    assert "not deterministic" in verify.gradient(noisy, squares, ONES).wrong[0].note
    stage = Stage("noisy", lambda _, x: x**2, lambda _, x, y, g: ((), noisy(x) * g))
    assert "not deterministic" in verify.stages([stage], ONES).wrong[0].note
    rules = RULES._replace(bias_gradient=lambda delta: RULES.bias_gradient(delta) * (1 + random.normal()))
    report = verify.network(params_of(fnn.Tanh()), loss=LOSS, rules=rules)
    assert any("not deterministic" in finding.note for finding in report.wrong)
    f = jax.custom_vjp(lambda x: x**2)
    f.defvjp(lambda x: (x**2, x), lambda x, g: (noisy(x) * g,))
    assert any("not deterministic" in finding.note for finding in verify.custom_vjp(f, ONES).wrong)


def test_so_is_an_objective_that_draws_its_own_mask():
    random = np.random.default_rng(0)

    def cost(w):
        return squares(w * (random.random(3) < 0.5))

    (finding,) = verify.gradient(lambda w: 2 * w, cost, ONES).wrong
    assert "objective is not deterministic" in finding.note


def test_a_difference_with_a_tiny_step_is_no_gradient():
    def differences(w):
        w = np.asarray(w)
        return np.array([(((w + h) ** 2).sum() - (w**2).sum()) / 1e-12 for h in 1e-12 * np.eye(3)])

    assert not verify.gradient(differences, squares, ONES).ok


def test_complex_arguments_are_compared_by_the_convention_of_jax():
    z = np.array([1 + 2j, -0.5 + 1j])

    def cost(p):
        return (p["a"] * jnp.abs(p["z"]) ** 2).sum()

    tree = {"a": np.array([1.0, 3.0]), "z": z}
    right = jax.grad(cost)
    assert verify.gradient(right, cost, tree).ok
    assert not verify.gradient(lambda p: right(p) | {"z": 0 * p["z"]}, cost, tree).ok
    assert not verify.gradient(lambda p: right(p) | {"z": right(p)["z"].conj()}, cost, tree).ok

    @jax.custom_vjp
    def f(a, z):
        return a * jnp.abs(z) ** 2

    f.defvjp(lambda a, z: (f(a, z), (a, z)), lambda given, g: (g * jnp.abs(given[1]) ** 2, 0 * given[1]))
    assert {finding.name for finding in verify.custom_vjp(f, tree["a"], z).wrong} == {"args[1]"}
    stage = Stage("abs", lambda _, z: jnp.abs(z) ** 2, lambda _, z, y, g: ((), 0 * z))
    assert not verify.stages([stage], z).ok


@dataclass(frozen=True)
class NaiveSoftplus(fnn.Activation):
    def value(self, z):
        return jnp.logaddexp(z, 0)

    def derivative(self, z, a):
        return jnp.exp(z) / (1 + jnp.exp(z))


def test_what_overflows_in_the_callers_dtype_alone_is_a_finding():
    report = verify.network(params_of(NaiveSoftplus()), loss=LOSS)
    assert [(finding.kind, finding.layer) for finding in report.wrong] == [("hidden_delta", 1)]

    def naive(x):
        return jnp.log(jnp.exp(x).sum())

    def hand(x):
        e = jnp.exp(x)
        return e / e.sum()

    report = verify.gradient(hand, naive, np.float32([100, 99, 1]))
    assert "in float32 it is nan" in report.wrong[0].note
    assert verify.gradient(hand, naive, np.float32([3, 2, 1])).ok


def test_digits_that_are_lost_in_the_callers_dtype_are_counted():
    def cost(x):
        return jnp.expm1(x).sum()

    report = verify.gradient(lambda x: (jnp.exp(x) - 9000) + 9000, cost, np.linspace(1e-3, 0.5, 20, dtype=np.float32))
    assert "in float32 it loses" in report.wrong[0].note


# -- one value that is not finite ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogCosh(fnn.Loss):
    def value(self, a, y):
        return jnp.log(jnp.cosh(a - y)).sum(axis=-1)

    def gradient(self, a, y):
        return jnp.tanh(a - y)


@dataclass(frozen=True)
class BranchedELU(fnn.Activation):
    def value(self, z):
        return jnp.where(z > 0, z, jnp.exp(z) - 1)

    def derivative(self, z, a):
        return jnp.where(z > 0, 1, jnp.exp(z)).astype(z.dtype)


@dataclass(frozen=True)
class RootOfSquare(fnn.Activation):
    def value(self, z):
        return jnp.sqrt(z * z)

    def derivative(self, z, a):
        return jnp.sign(z)


@pytest.mark.parametrize("activation", [BranchedELU(), RootOfSquare()], ids=repr)
def test_where_autodiff_is_not_finite_the_right_derivative_is_not_accused(activation):
    assert verify.network(params_of(activation, sizes=(3, 4, 4, 2)), loss=LOSS).ok
    x = np.float32(1000 * np.random.default_rng(0).normal(size=(5, 3)))
    assert verify.network(params_of(activation), x, np.ones((5, 2), np.float32), loss=LOSS).ok


@pytest.mark.parametrize("loss", [LogCosh(), fnn.Poisson()], ids=repr)
def test_a_loss_that_overflows_condemns_nothing(loss):
    report = verify.network(params_of(fnn.Tanh()), loss=loss)
    assert report.ok, report
    assert "not compared" in str(report) or "differences" in str(report)


@dataclass(frozen=True)
class Exp(fnn.Activation):
    def value(self, z):
        return jnp.exp(z)

    def derivative(self, z, a):
        return a


def test_autodiff_goes_through_a_graph_whose_activations_overflow_elsewhere():
    graph = fnn.graph.Graph([("x", "e"), ("x", "i"), ("e", "y"), ("i", "y")],
                            {"e": Exp(), "i": fnn.Identity(), "y": fnn.Identity()}, ["x"], ["y"])  # fmt: skip
    params = graph.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: 0 * leaf, params)
    biases = np.zeros(4, np.float32)
    biases[graph.neurons.index("i")] = 300
    params = type(params)(np.float32([0, 0, 1, 1]), biases, params.graph, None)
    x, y = np.ones((2, 1), np.float32), np.ones((2, 1), np.float32)
    gradient = jax.grad(lambda p: LOSS.value(fnn.forward(p, x), y).sum())(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert verify.network(params, x, y, loss=LOSS, probes=False).ok
    layered = fnn.PerNeuron((Exp(), fnn.Identity()))
    z = jnp.array([[1.0, 300.0]])
    assert jnp.isfinite(jax.grad(lambda z: layered.value(z).sum())(z)).all()


# -- right derivatives -----------------------------------------------------------------------------------------


def in_float32(f):
    return lambda x: f(x.astype(jnp.float32)).astype(x.dtype)


MIXED = {  # float32 inside, whatever comes in
    "softmax": lambda x: jax.nn.softmax(x),
    "rms norm": lambda x: x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6),
    "product": lambda x: x @ x.T,
}


@pytest.mark.parametrize("name", MIXED)
def test_what_computes_in_float32_inside_is_judged_at_float32(name):
    f = in_float32(MIXED[name])
    x = np.random.default_rng(0).normal(size=(3, 4))
    wrapped = jax.custom_vjp(f)
    wrapped.defvjp(lambda x: (f(x), x), lambda x, g: (jax.vjp(in_float32(MIXED[name]), x)[1](g)[0] * (1 + 1e-7),))
    report = verify.custom_vjp(wrapped, x)
    assert report.ok, report
    assert "float32, in which the code computes" in str(report)
    wrong = jax.custom_vjp(f)
    wrong.defvjp(lambda x: (f(x), x), lambda x, g: (jax.vjp(f, x)[1](g)[0] * 1.001,))
    assert not verify.custom_vjp(wrong, x).ok


def test_two_equal_numbers_are_never_shown_as_a_difference():
    report = verify.gradient(lambda w: 2 * w * (1 + 1e-9), squares, ONES)
    shown = report.wrong[0].worst()
    hand, oracle = shown.split("hand ")[1].split(", autodiff ")
    assert hand != oracle


def test_every_way_to_break_a_tie_is_right():
    def larger(x):
        return jnp.maximum(x[:2], x[2:]).sum()

    tied = np.array([1.0, 2.0, 1.0, 2.0])
    for first in (1, 0.5, 0, np.array([1, 0])):
        share = np.concatenate([first * np.ones(2), 1 - first * np.ones(2)])
        assert verify.gradient(lambda x: share, larger, tied).ok  # noqa: B023
    assert not verify.gradient(lambda x: 2 * np.ones(4), larger, tied).ok
    for share in ([1, 0, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]):
        assert verify.gradient(lambda x: np.array(share), lambda x: x.max(), 5 * ONES).ok  # noqa: B023
    pooled = Stage("pool", lambda _, x: x.reshape(2, 2).max(axis=1),
                   lambda _, x, y, g: ((), jnp.stack([0 * g, g], axis=1).ravel()))  # fmt: skip
    assert verify.stages([pooled], np.array([1.0, 1.0, 3.0, 3.0])).ok


def maximum_with(first, second):
    """The larger of two, with shares of the cotangent at a tie."""

    @jax.custom_vjp
    def larger(a, b):
        return jnp.maximum(a, b)

    def backward(kept, g):
        a, b = kept
        return share(a, b, first) * g, share(b, a, second) * g

    def share(a, b, tied):
        return jnp.where(a > b, 1.0, jnp.where(a == b, float(tied), 0.0)).astype(a.dtype)

    larger.defvjp(lambda a, b: (jnp.maximum(a, b), (a, b)), backward)
    return larger


SHARES = {
    (1, 0): True,
    (0, 1): True,
    (0.5, 0.5): True,
    (0.3, 0.7): True,
    (1, 1): False,
    (0, 0): False,
    (0.3, 0.6): False,
}


@pytest.mark.parametrize("size", [3, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("shares", SHARES)
def test_shares_of_a_tie_sum_to_the_whole(shares, size):
    larger, tied, right = maximum_with(*shares), np.linspace(1, 2, size), SHARES[shares]
    assert verify.custom_vjp(larger, tied, tied).ok == right
    assert verify.function(larger, tied, tied).ok == right
    hand = {"a": np.full(size, float(shares[0])), "b": np.full(size, float(shares[1]))}
    report = verify.gradient(lambda p: hand, lambda p: jnp.maximum(p["a"], p["b"]).sum(), {"a": tied, "b": tied})
    assert report.ok == right


@pytest.mark.parametrize("size", [3, 100])
def test_so_do_the_shares_of_a_largest_number_among_many(size):
    first, last, all_of_them = np.eye(size)[0], np.eye(size)[-1], np.ones(size)
    for hand, right in (
        (first, True),
        (last, True),
        (all_of_them / size, True),
        (all_of_them, False),
        (0.9 * last, False),
    ):
        assert verify.gradient(lambda w: hand, lambda w: w.max(), all_of_them).ok == right  # noqa: B023


def test_a_wrong_tie_condemns_no_kink_beside_it():
    def cost(p):
        return p["tie"].max() + jax.nn.relu(p["up"]).sum() - jax.nn.relu(p["down"]).sum()

    params = {"tie": np.ones(3), "up": np.zeros(4), "down": np.zeros(40)}
    hand = {"up": 0.5 * np.ones(4), "down": -0.7 * np.ones(40)}
    for share, right in (([0.9, 0.5, 0.3], False), ([0.2, 0.3, 0.5], True)):
        report = verify.gradient(lambda p: hand | {"tie": np.array(share)}, cost, params)  # noqa: B023
        assert report.ok == right
        assert [finding.name for finding in report.wrong] == ([] if right else ["params['tie']"])


def test_kinks_of_sums_may_have_slopes_of_their_own():
    W = np.abs(np.random.default_rng(0).normal(size=(5, 80)))
    for slopes in ([1, 0, 0.3, 0.2, 0.5], [1, 1, 1, 1, 1]):
        assert verify.gradient(lambda x: slopes @ W, lambda x: jax.nn.relu(W @ x).sum(), np.zeros(80)).ok  # noqa: B023


def test_relu_may_have_any_slope_at_zero():
    w = np.array([0.0, 1.0, -1.0])
    for slope in (0, 0.5, 1):
        hand = np.array([slope, 1, 0])
        assert verify.gradient(lambda w: hand, lambda w: jax.nn.relu(w).sum(), w).ok  # noqa: B023
    assert not verify.gradient(lambda w: np.array([5, 1, 0]), lambda w: jax.nn.relu(w).sum(), w).ok


def relu_of(slope):
    def hidden(g, activation, z, a):
        if activation != fnn.ReLU():
            return RULES.hidden_delta(g, activation, z, a)
        return g * jnp.where(z > 0, 1.0, jnp.where(z == 0, slope, 0.0)).astype(z.dtype)

    return RULES._replace(hidden_delta=hidden)


@pytest.mark.parametrize("kind", ["layers", "graph"])
def test_kinks_are_honoured_and_probed(kind):
    params = params_of(fnn.ReLU())
    if kind == "graph":
        params = fnn.graph.Graph.layered((3, 4, 2), fnn.ReLU()).init(jax.random.key(0))
    for slope, right in ((0.5, True), (1.0, True), (5.0, False)):
        assert verify.network(params, loss=LOSS, rules=relu_of(slope)).ok == right


def test_where_autodiff_is_wrong_at_a_point_both_sides_are_believed():
    def signed_log(z):
        return (jnp.sign(z) * jnp.log1p(jnp.abs(z))).sum()

    z = np.array([0.0, 1.0, -2.0])
    assert verify.gradient(lambda z: 1 / (1 + jnp.abs(z)), signed_log, z).ok
    assert not verify.gradient(lambda z: 2 / (1 + jnp.abs(z)), signed_log, z).ok

    def root(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0).sum()

    assert verify.gradient(
        lambda x: jnp.where(x > 0, 0.5 / jnp.sqrt(jnp.where(x > 0, x, 1)), 0), root, np.array([0.0, 4.0])
    ).ok


# -- a notebook goes on ----------------------------------------------------------------------------------------

DATA = np.random.default_rng(0).normal(size=(4, 7))
COMPILED = jax.jit(lambda w: jnp.tanh(w @ DATA).sum())


@pytest.mark.parametrize("cost", [lambda w: jnp.tanh(w @ DATA).sum(), COMPILED, lambda w: COMPILED(w) + 1])
def test_code_that_closes_over_float64_arrays_runs_after_the_check_as_before(cost):
    w = jnp.ones((5, 4), jnp.float32)
    hand = jax.grad(cost)
    before, compiled = hand(w), jax.jit(jax.grad(cost))(w)
    assert verify.gradient(lambda w: (1 - jnp.tanh(w @ DATA) ** 2) @ DATA.T, cost, w).ok
    np.testing.assert_array_equal(jax.grad(cost)(w), before)
    np.testing.assert_array_equal(jax.jit(jax.grad(cost))(w), compiled)
    assert cost(w).dtype == jnp.float32


def test_the_error_shown_is_the_users_own():
    with pytest.raises(KeyError, match="missing"):
        verify.gradient(lambda p: p["missing"], lambda p: squares(p["w"]), {"w": ONES})
    with pytest.raises(TypeError, match="dot_general requires contracting dimensions"):
        verify.gradient(lambda w: 2 * w, lambda w: (w @ np.ones((2, 3))).sum() + jnp.dot(w, jnp.ones(7)), ONES)


def test_a_backward_pass_that_works_in_place_in_numpy_runs():
    def cost(h):
        return jax.nn.relu(h).sum()

    def hand(h):
        dh = np.ones_like(h)
        dh[h <= 0] = 0
        return dh

    h = np.array([1.0, -2.0, 3.0])
    assert verify.gradient(hand, cost, h).ok

    def overwrites(h):
        h[:] = 0
        return np.array([1.0, 0, 1.0])

    assert verify.gradient(overwrites, cost, h).ok
    np.testing.assert_array_equal(h, [1.0, -2.0, 3.0])


# -- what is said ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PReLU(fnn.Activation):
    slope: float = 0.2
    wrong: float = 0.3

    def value(self, z):
        return jnp.where(z > 0, z, self.slope * z)

    def derivative(self, z, a):
        return jnp.where(z > 0, 1, self.wrong).astype(z.dtype)


def test_a_wrong_slope_is_described_by_where_it_is_wrong_and_by_nothing_false():
    (finding,) = verify.network(params_of(PReLU()), loss=LOSS).wrong
    assert "sigma'(a[1])" not in finding.note
    assert "z < 0" in finding.note or "z <= 0" in finding.note
    assert "1.5" in finding.note


NOTES = {
    "rows": (
        lambda delta, W: (delta @ W).at[jnp.array([1, 3])].multiply(3),
        "examples 1 and 3 only: a constant factor 3",
    ),
    "one unit": (lambda delta, W: (delta @ W).at[:, 2].set(0), "input 2 only: it is zero"),
    "the sign": (lambda delta, W: -delta @ W, "the sign"),
}


@pytest.mark.parametrize("name", NOTES)
def test_a_pattern_is_named_where_no_usual_mistake_explains(name):
    function, note = NOTES[name]
    rules = RULES._replace(
        input_gradient=lambda d, W, mask=None: function(d, W) if len(d) > 3 else RULES.input_gradient(d, W, mask)
    )
    params = params_of(fnn.Tanh(), sizes=(5, 4, 3))
    x, y = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("f4"), np.ones((6, 3), np.float32)
    report = verify.network(params, x[0], y, loss=LOSS, rules=rules, probes=False)
    assert {finding.note for finding in report.wrong} == {note}


def test_a_mistake_is_one_line_and_says_which_output_was_forgotten():
    @jax.custom_vjp
    def f(x):
        return {"a": x**2, "b": jnp.sin(x)}

    f.defvjp(lambda x: (f(x), x), lambda x, g: (2 * x * g["a"],))
    (finding,) = verify.custom_vjp(f, ONES).wrong
    assert finding.note == "the cotangent of the output ['b'] is not used"


def test_a_wrong_custom_derivative_inside_is_named_and_a_right_outer_one_is_not_accused():
    @jax.custom_vjp
    def inner(x):
        return jnp.sin(x)

    inner.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))
    names = {}
    for name, factor in (("right", 1.0), ("wrong", 2.0)):
        outer = jax.custom_vjp(lambda x: inner(x) ** 2)
        outer.defvjp(
            lambda x: (jnp.sin(x) ** 2, x),
            lambda x, g, factor=factor: (factor * g * 2 * jnp.sin(x) * jnp.cos(x),),
        )
        names[name] = {finding.name for finding in verify.custom_vjp(outer, ONES).wrong}
    assert len(names["right"]) == 1
    assert next(iter(names["right"])).startswith("inner, a custom derivative inside")
    assert names["wrong"] == names["right"] | {"args[0]"}


# -- probes ----------------------------------------------------------------------------------------------------

HIDING = {  # wrong at some arguments only
    "batches of 8": lambda delta: delta.sum(axis=0) * (1 if len(delta) % 8 else 2),
    "batches of 33": lambda delta: delta[:32].sum(axis=0),
    "widths beyond 16": lambda delta: delta.sum(axis=0).at[16:].set(0),
}


@pytest.mark.parametrize("name", HIDING)
def test_a_mistake_at_some_sizes_only_is_found(name):
    report = verify.network(params_of(fnn.Tanh()), loss=LOSS, rules=RULES._replace(bias_gradient=HIDING[name]))
    assert {finding.kind for finding in report.wrong} == {"bias_gradient"}


AT_POINTS = {
    "z = 2": lambda g, s, z, a: jnp.where(z == 2, 0, RULES.hidden_delta(g, s, z, a)),
    "z > 20": lambda g, s, z, a: jnp.where(z > 20, 1, RULES.hidden_delta(g, s, z, a)),
    "g = 0": lambda g, s, z, a: jnp.where(g == 0, 1, RULES.hidden_delta(g, s, z, a)),
    "g > 10": lambda g, s, z, a: jnp.where(g > 10, 10, RULES.hidden_delta(g, s, z, a)),
}


@pytest.mark.parametrize("name", AT_POINTS)
def test_a_mistake_at_some_values_only_is_found(name):
    report = verify.network(params_of(fnn.Tanh()), loss=LOSS, rules=RULES._replace(hidden_delta=AT_POINTS[name]))
    assert {finding.kind for finding in report.wrong} == {"hidden_delta"}


def test_labels_are_probed():
    @dataclass(frozen=True)
    class OffByOne(fnn.SoftmaxCrossEntropy):
        def delta(self, activation, z, a, y):
            return super().delta(activation, z, a, y + 1 if jnp.issubdtype(y.dtype, jnp.integer) else y)

    report = verify.network(params_of(fnn.Tanh(), sizes=(3, 4, 3)), loss=OffByOne())
    assert {finding.kind for finding in report.wrong} == {"output_delta"}


def test_probes_run_beside_data_unless_they_are_turned_off():
    params, (x, y) = params_of(fnn.Tanh()), (np.ones((5, 3), np.float32), np.ones((5, 2), np.float32))
    rules = RULES._replace(bias_gradient=HIDING["batches of 8"])
    assert not verify.network(params, x, y, loss=LOSS, rules=rules).ok
    report = verify.network(params, x, y, loss=LOSS, rules=rules, probes=False)
    assert report.ok
    assert "cases" not in str(report)


# -- cotangents that no draw has -----------------------------------------------------------------------------------


def zero(g):
    return jnp.all(g == 0)


def clipped(g):
    return jnp.clip(g, -10, 10)


def at_zero(rule):
    """The rule, with ones where its cotangent is 0."""
    return RULES._replace(**{rule: lambda g, *args: jnp.where(zero(g), 1.0, getattr(RULES, rule)(g, *args))})


def beyond_ten(rule):
    return RULES._replace(**{rule: lambda g, *args: getattr(RULES, rule)(clipped(g), *args)})


@pytest.mark.parametrize("rule", ["hidden_delta", "input_gradient", "weight_gradient", "bias_gradient"])
@pytest.mark.parametrize("wrong", [at_zero, beyond_ten])
def test_a_rule_that_is_wrong_at_cotangent_0_or_beyond_10_alone_is_found(wrong, rule):
    report = verify.network(params_of(fnn.Tanh()), loss=LOSS, rules=wrong(rule))
    assert {finding.kind for finding in report.wrong} == {rule}


PULLBACKS = {  # of x², and the words of what is wrong
    "right": (lambda x, g: 2 * x * g, ""),
    "wrong at 0": (lambda x, g: jnp.where(zero(g), 1.0, 2 * x * g).astype(g.dtype), "not 0 where the cotangent is 0"),
    "wrong where it is 0": (lambda x, g: jnp.where(g == 0, 1.0, 2 * x * g).astype(g.dtype), "not 0 where"),
    "clipped": (lambda x, g: 2 * x * clipped(g), "not linear in the cotangent"),
    "of its sign": (lambda x, g: 2 * x * g + 0.2 * jnp.abs(g), "not linear in the cotangent"),
}


@pytest.mark.parametrize("name", PULLBACKS)
def test_so_is_a_pullback_of_a_stage_a_custom_derivative_a_function_and_a_kernel(name):
    rule, words = PULLBACKS[name]
    square = jax.custom_vjp(lambda x: x**2)
    square.defvjp(lambda x: (x**2, x), lambda x, g: (rule(x, g),))
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(8, 16)), jnp.bfloat16)
    reports = (
        verify.stages([Stage("square", lambda _, x: x**2, lambda _, x, y, g: ((), rule(x, g)))], ONES),
        verify.custom_vjp(square, ONES),
        verify.function(lambda x: jnp.sum(3 * square(x)), ONES),
        verify.function(square, np.array(2.0)),
        verify.custom_vjp(square, kernel, oracle=lambda x: x**2),
    )
    for report in reports:
        assert report.ok is (name == "right")
        if name != "of its sign":  # which is wrong at every cotangent, too
            assert all(words in finding.note for finding in report.wrong)


def test_a_rule_that_raises_or_divides_by_the_length_of_its_cotangent_is_a_finding():
    def unit(_, x, y, g):
        return (), 2 * x * g * (np.linalg.norm(g) / np.linalg.norm(g))

    def picky(_, x, y, g):
        if not np.asarray(g).any():
            raise ValueError("no cotangent")
        return (), 2 * x * g

    for rule, words in (unit, "not 0 where the cotangent is 0"), (picky, "it raises ValueError: no cotangent"):
        (wrong,) = verify.stages([Stage("square", lambda _, x: x**2, rule)], ONES).wrong
        assert words in wrong.note


def test_a_gradient_that_is_clipped_on_purpose_is_a_surrogate():
    clip = jax.custom_vjp(lambda x: x)
    clip.defvjp(lambda x: (x, None), lambda _, g: (clipped(g),))
    assert not verify.custom_vjp(clip, ONES).ok
    assert verify.custom_vjp(clip, ONES, surrogate=clip).ok


@dataclass(frozen=True)
class Absolute(fnn.Loss):
    at_zero: float = 0.0

    def value(self, a, y):
        return jnp.sum(jnp.abs(a - y), axis=-1)

    def gradient(self, a, y):
        return jnp.where(a == y, self.at_zero, jnp.sign(a - y))


@pytest.mark.parametrize("output", [fnn.Identity(), fnn.Sigmoid(), fnn.Tanh()])
@pytest.mark.parametrize("slope", [0.0, 1.0, 0.3, 1.2])
def test_targets_that_are_the_outputs_are_probed_and_any_slope_of_a_kink_there_is_right(slope, output):
    report = verify.network(params_of(fnn.Tanh(), output), loss=Absolute(slope))
    assert report.ok is (slope <= 1)


# -- robust ----------------------------------------------------------------------------------------------------

BROKEN = {
    "raises": lambda *args: 1 / 0,
    "a list": lambda *args: [1.0, 2.0],
    "None": lambda *args: None,
    "another shape": lambda *args: jnp.ones((2, 3, 4)),
}


EVERY_RULE = [
    *itertools.product(BROKEN, RULES._fields, ["layers"]),
    *itertools.product(BROKEN, RULES._fields[2:], ["graph"]),
]
ESSENTIAL = [
    *(("raises", rule, "layers") for rule in RULES._fields),
    *((how, "bias_gradient", kind) for how in BROKEN for kind in ("layers", "graph")),
]


@pytest.mark.parametrize("case", and_slow(ESSENTIAL, EVERY_RULE), ids=" ".join)
def test_a_rule_that_is_broken_in_any_way_is_a_finding(case):
    how, rule, kind = case
    params = fnn.init(jax.random.key(0), (3, 4, 2), batch_norm="full")
    if kind == "graph":
        params = fnn.graph.Graph.from_layers(params)
    report = verify.network(params, loss=LOSS, rules=RULES._replace(**{rule: BROKEN[how]}))
    assert rule in {finding.kind for finding in report.wrong}, report


@pytest.mark.parametrize("how", BROKEN)
def test_so_is_a_stage_and_a_custom_derivative(how):
    stage = Stage("square", lambda _, x: x**2, lambda *args: BROKEN[how]())
    assert not verify.stages([stage], ONES).ok
    f = jax.custom_vjp(lambda x: x**2)
    f.defvjp(lambda x: (x**2, x), lambda x, g: BROKEN[how]())
    assert not verify.custom_vjp(f, ONES).ok


def test_functions_come_as_partials_and_dtypes_as_types():
    f = jax.custom_vjp(lambda c, x: c * x**2, nondiff_argnums=(0,))
    f.defvjp(lambda c, x: (c * x**2, x), lambda c, x, g: (2 * c * x * g,))
    assert verify.custom_vjp(partial(f, 3.0), ONES).ok
    assert verify.gradient(lambda w: 2 * w, squares, ONES, dtype=jnp.float32).dtype == "float32"


def test_the_report_shows_a_smallest_example():
    def wrong(w, x):
        return {"w": x.T @ (x @ w["w"])}

    def cost(w, x):
        return ((x @ w["w"]) ** 2).sum()

    random = np.random.default_rng(0)
    (finding,) = verify.gradient(wrong, cost, {"w": random.normal(size=(4, 3))}, random.normal(size=(5, 4))).wrong
    assert "hand" in finding.example
    assert "right" in finding.example
    assert len(finding.example) < 120
    (finding,) = verify.network(
        params_of(fnn.Tanh(), sizes=(3, 2)), loss=LOSS, rules=RULES._replace(bias_gradient=lambda delta: delta[0])
    ).wrong
    assert finding.example


def test_a_report_survives_pickling():
    report = verify.gradient(lambda w: w, squares, ONES)
    assert str(pickle.loads(pickle.dumps(report))) == str(report)


# -- weak comparisons ------------------------------------------------------------------------------------------


def only_in_float32(function):
    """A function that NumPy evaluates in float32."""
    return lambda x: jax.pure_callback(lambda x: function(np.float32(x)), jax.ShapeDtypeStruct(x.shape, jnp.float32), x)


def test_differences_in_float32_find_a_percent_and_the_verdict_says_that_they_are_weak():
    def kernel(factor):
        f = jax.custom_vjp(only_in_float32(np.tanh))
        f.defvjp(lambda x: (f(x), x), lambda x, g: (factor * g * (1 - jnp.tanh(x) ** 2),))
        return f

    x = np.float32([0.3, -0.8, 1.2])
    assert not verify.custom_vjp(kernel(1.015), x, dtype="float32").ok
    report = verify.custom_vjp(kernel(1.0), x, dtype="float32")
    assert report.ok
    assert "but only compared with differences" in report.verdict()
    with pytest.warns(verify.WeakComparison, match="differences"):
        report.check()
