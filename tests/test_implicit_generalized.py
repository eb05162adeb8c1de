"""Implicit SGD of generalised linear models is θ' = θ − η∇L(θ'), for every loss, size and rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from errors import Y, assert_refused, layer, table
from fnn.implicit import scalar
from fnn.implicit.generalized import generalized_linear
from implicit_cases import (
    NUMBER,
    assert_second_order,
    assert_solves,
    cases,
    difference,
    distance,
    explicit,
    first,
    in_float64,
    lengths,
    moderate,
    random_problems,
    stepped,
)
from problems import and_slow

SIGMOID, SOFTMAX, POISSON = fnn.SigmoidCrossEntropy(), fnn.SoftmaxCrossEntropy(), fnn.Poisson()


def mean_and_slope(a, loss):
    if loss == POISSON:
        return jnp.exp(a), jnp.max(jnp.exp(a))
    p = jax.nn.sigmoid(a) if loss == SIGMOID else jax.nn.softmax(a)
    return p, jnp.max(p * (1 - p))


def one_hot(random, shape):
    return np.eye(shape[-1])[random.integers(0, shape[-1], shape[:-1])]


def zero_or_one(random, shape):
    return random.integers(0, 2, shape)


def fractions(random, shape):
    return random.uniform(size=shape) ** random.choice([1, 20], shape)


def counts(random, shape):
    return random.poisson(10 ** random.uniform(-1, 6, shape))


FRACTIONS, TEN_CLASSES, COUNTS = (SIGMOID, 2, fractions), (SOFTMAX, 10, one_hot), (POISSON, 2, counts)
ZERO_OR_ONE, TWO_CLASSES = (SIGMOID, 2, zero_or_one), (SOFTMAX, 2, one_hot)  # special cases of the first two
KINDS = (FRACTIONS, TEN_CLASSES, COUNTS, ZERO_OR_ONE, TWO_CLASSES)


def named(kind):
    return f"{kind[0]!r} {kind[2].__name__} {kind[1]}"


def kinds(*default):
    """Which kinds of targets are in every run; the others are in the slow one."""
    return pytest.mark.parametrize("kind", and_slow(default, KINDS), ids=named)


def whole_batch(loss, n_out, targets, seed=0):
    """Parameters, rate, and many examples of every size for them; as a batch, and as problems of their own."""
    given = cases(4, n_out, targets, seed=seed)
    params, _, _, eta = first(given)
    alike = jax.tree.map(lambda v: jnp.asarray(np.broadcast_to(v, (NUMBER, *v.shape))), (params, eta))
    return (params, given.x, given.y, eta), given._replace(params=alike[0], eta=alike[1])


@random_problems
@kinds(FRACTIONS, TEN_CLASSES, COUNTS)
def test_the_step_solves_its_equation_for_every_size_and_rate(kind, seeds, x64):
    loss, n_out, targets = kind
    assert_solves(generalized_linear, lambda seed: cases(4, n_out, targets, seed=seed), loss, mean_and_slope, seeds)


@kinds(TEN_CLASSES, COUNTS)  # the logistic equation is solved on the way to the softmax's
def test_float32_is_finite_everywhere_and_close_to_float64(kind):
    loss, n_out, targets = kind
    single = cases(4, n_out, targets, dtype="float32")
    ours, exact = stepped(generalized_linear, single, loss), in_float64(generalized_linear, single, loss)
    gap, moved = lengths(difference(exact, ours)), lengths(difference(exact, single.params))
    assert np.isfinite(gap).all()
    assert (gap <= 3e-5 * (lengths(single.params) + moved)).all()  # u itself is only known to 1e-7 ‖x‖‖θ‖


# of what solves its equation it must hold
@pytest.mark.parametrize("kind", and_slow([COUNTS], [FRACTIONS, TEN_CLASSES]), ids=named)
def test_as_the_rate_goes_to_0_it_becomes_explicit_sgd_with_an_error_of_second_order(kind, x64):
    loss = kind[0]
    (params, x, y, _), _ = whole_batch(*kind, seed=3)
    x, y = moderate(x), jnp.asarray(np.minimum(y, 5))
    assert_second_order(lambda rate: generalized_linear(params, x, y, rate, loss=loss), params, x, y, loss)


@kinds(FRACTIONS, TEN_CLASSES, COUNTS)
def test_a_batch_is_the_mean_of_its_examples_own_steps(kind, x64):
    loss = kind[0]
    batch, alone = whole_batch(*kind, seed=4)
    own = stepped(generalized_linear, alone, loss)
    mean = jax.tree.map(lambda leaf: np.asarray(leaf).mean(axis=0), own)
    assert distance(generalized_linear(*batch, loss=loss), mean) <= 1e-12 * lengths(own).max()


@pytest.mark.parametrize("kind", [FRACTIONS, TEN_CLASSES], ids=named)
def test_where_a_target_has_no_equation_a_traced_one_gives_nan_and_not_a_wrong_step(kind, x64):
    loss, n_out, targets = kind
    given = cases(4, n_out, targets)
    wrong = given._replace(y=jnp.asarray(np.full((NUMBER, n_out), 0.5 if loss == SOFTMAX else 1.5)))
    assert np.isnan(stepped(generalized_linear, wrong, loss)[0].W).all()


@pytest.mark.parametrize("loss", [SIGMOID, SOFTMAX])
def test_labels_and_one_hot_rows_give_the_same_step(loss, x64):
    (params, x, rows, eta), _ = whole_batch(loss, 10 if loss == SOFTMAX else 2, one_hot)
    labels = jnp.asarray(np.argmax(rows, axis=1))
    by_label, by_row = (generalized_linear(params, x, y, eta, loss=loss) for y in (labels, rows))
    assert distance(by_label, by_row) == 0


def test_one_class_has_probability_1_and_stays():
    params = layer(W=jnp.ones((1, 3)), b=jnp.zeros(1))
    new = generalized_linear(params, jnp.ones((5, 3)), jnp.ones((5, 1)), 10.0, loss=SOFTMAX)
    np.testing.assert_array_equal(new[0].W, params[0].W)


def test_wrights_omega_solves_its_equation(x64):
    x = np.concatenate([np.linspace(-700, 700, 100_001), np.logspace(-300, 300, 10_001)])
    log_w = np.asarray(jax.jit(scalar.log_omega)(x))
    assert np.max(np.abs(log_w + np.exp(log_w) - x) / (1 + np.abs(x))) <= 1e-14 * 700


def test_explicit_sgd_diverges_where_the_implicit_step_stays_near_the_target(x64):
    params = layer(*map(jnp.asarray, (np.full((2, 4), 0.1), np.zeros(2))))
    x, y = jnp.asarray(np.full((NUMBER, 4), 100.0)), jnp.asarray(np.tile([3.0, 0.0], (NUMBER, 1)))

    def mean_after(new):
        return np.exp(new[0].W @ x[0] + new[0].b)[0]

    assert mean_after(generalized_linear(params, x, y, 1e6, loss=POISSON)) == pytest.approx(3, rel=1e-6)
    assert not 1e-6 < mean_after(explicit(params, x, y, 1e6, POISSON)) < 1e6


@pytest.mark.slow  # the like of it for least squares is not
def test_a_compiled_loop_takes_steps_with_a_rate_of_its_own():
    params = layer()

    @jax.jit
    def train(params, rates):
        def step(p, rate):
            return generalized_linear(p, jnp.ones((5, 3)), jnp.zeros(5, int), rate, loss=SOFTMAX), None

        return jax.lax.scan(step, params, rates)[0]

    new = train(params, jnp.array([0.1, 1.0, 10.0]))
    one_by_one = params
    for rate in (0.1, 1.0, 10.0):
        one_by_one = generalized_linear(one_by_one, jnp.ones((5, 3)), jnp.zeros(5, int), rate, loss=SOFTMAX)
    np.testing.assert_allclose(new[0].W, one_by_one[0].W, rtol=1e-6)


@table(
    {
        "two layers": ({"params": layer() + layer()[:1]}, ValueError, "^params: .* one layer", "got 2", "layerwise"),
        "another output": ({"params": layer(activation=fnn.Tanh())}, ValueError, "^params: .*Identity", "Tanh"),
        "squared error": ({"loss": fnn.SquaredError(), "y": Y}, ValueError, "^loss: expected", "write implicit.linear"),
        "Huber": ({"loss": fnn.Huber(), "y": Y}, ValueError, "^loss: expected .*Poisson", "got Huber", "write loss="),
        "soft targets": ({"y": jnp.full((5, 2), 0.5)}, ValueError, "^y: .*soft targets", "argmax"),
        "above 1": ({"y": jnp.full((5, 2), 1.5), "loss": SIGMOID}, ValueError, "^y: expected 0 <= y <= 1", "clip"),
        "a negative count": ({"y": -jnp.ones((5, 2)), "loss": POISSON}, ValueError, "^y: expected counts", "maximum"),
        "a rate of 0": ({"learning_rate": 0.0}, ValueError, "^learning_rate: expected a finite number > 0, got 0"),
        "no rate": ({"learning_rate": "fast"}, TypeError, "^learning_rate: expected a number", "'fast'"),
        "targets of another shape": ({"y": jnp.zeros((5, 3)), "loss": SIGMOID}, ValueError, "^y: expected shape"),
        "integers": ({"x": jnp.ones((5, 3), int)}, TypeError, "^x: expected float32"),
    }
)
def test_what_it_cannot_do_is_refused(given, error, fragments):
    x, y = jnp.ones((5, 3)), jnp.zeros(5, int)
    arguments = {"params": layer(), "x": x, "y": y, "learning_rate": 0.1, "loss": SOFTMAX} | given
    if "params" in given and len(given["params"]) > 1:
        arguments["params"] = (layer()[0], fnn.Dense(jnp.ones((2, 2)), jnp.zeros(2), fnn.Identity()))
    assert_refused(lambda: generalized_linear(**arguments), error, fragments)
