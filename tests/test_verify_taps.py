"""verify.tap: named quantities inside a function, and the δ that is wrong told from those that only use it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.verify import DerivationError, gradient, tap
from taps_cases import CASES, RNN, STEPS, WRONG, check, rnn, rnn_by_hand, rnn_in_a_scan


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_right_deltas_pass(name, dtype):
    report = check(name, dtype=dtype)
    assert report.check() is report
    hand, _, params, *args = CASES[name]
    assert {finding.name for finding in report.findings} == {
        *hand(params, *args)[1],
        *(f"params['{leaf}']" for leaf in params),
    }
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize(("name", "mistake", "wrong", "note"), WRONG)
def test_the_wrong_delta_is_told_from_those_that_only_use_it(name, mistake, wrong, note):
    report = check(name, mistake)
    assert [finding.name for finding in report.wrong] == wrong
    assert note in report.wrong[0].note
    suffering = [f for f in report.findings if f.ok and f.end_to_end > 1e-6]
    assert suffering or name == "attention" or wrong == ["z_o"]


def test_the_message_says_which_is_wrong_and_how_many_only_use_it():
    with pytest.raises(DerivationError) as raised:
        check("lstm", {"through_h": 0}).check()
    first, second, *_ = str(raised.value).splitlines()
    assert first == "1 of 14 quantities is wrong (9 others differ only because they use it)"
    assert second.startswith("  c     local error")
    assert "the term through h is missing" in str(raised.value)
    assert "delta['h'] = [[0." in str(raised.value).split("smallest: ")[1]


def test_of_several_wrong_ones_the_first_in_backward_order_is_told():
    hand, objective, params, *args = CASES["residual"]
    report = gradient(partial(hand, skip=0, slope=False), objective, params, *args)
    assert [finding.name for finding in report.wrong] == ["z", "h"]
    assert "the first wrong one in backward order: z" in str(report)


def test_a_right_delta_beside_a_wrong_one_that_it_does_not_use_is_not_accused():
    """A function may return a wrong δ and go on with the right one."""
    hand, objective, params, *args = CASES["residual"]

    def careless(*given):
        gradient, deltas = hand(*given)
        return gradient, deltas | {"z": 2 * deltas["z"]}

    (wrong,) = gradient(careless, objective, params, *args).wrong
    assert (wrong.name, wrong.note) == ("z", "a factor 2 too large")


def function(w):
    return (jnp.sin(tap("z", w * w)) ** 2).sum()


def plain(w):
    return (jnp.sin(w * w) ** 2).sum()


@pytest.mark.parametrize(
    "transform",
    [lambda f: f, jax.jit, jax.grad, jax.hessian, lambda f: jax.vmap(f), lambda f: jax.jit(jax.vmap(jax.grad(f))),
     jax.checkpoint, jax.make_jaxpr, lambda f: lambda w: jax.linearize(f, w)[1](w), jax.jacfwd],
)  # fmt: skip
def test_a_tap_is_the_identity_where_no_check_runs(transform):
    w = jnp.array([[0.3, -1.0], [2.0, 0.5]])
    assert str(transform(function)(w)) == str(transform(plain)(w))


def test_a_tapped_value_is_the_value_itself():
    for value in (np.ones(3), 2.0, {"a": jnp.ones(2)}, None, "anything"):
        assert tap("z", value) is value


def hand(w):
    return 2 * w * (d := 2 * np.sin(w * w) * np.cos(w * w)), {"z": d}


@pytest.mark.parametrize(
    "wrapped", [lambda f: f, jax.jit, jax.checkpoint, lambda f: jax.jit(jax.checkpoint(jax.jit(f)))]
)
def test_a_tap_is_found_in_compiled_functions_too(wrapped):
    w = jnp.array([0.3, -1.0, 2.0])
    called = wrapped(function)
    called(w)  # what is compiled already does not hide it
    for dtype in ("float32", "float64"):
        assert len(gradient(hand, called, w, dtype=dtype).check().findings) == 2
    (wrong, *_) = gradient(lambda w: (hand(w)[0], {"z": -hand(w)[1]["z"]}), called, w).wrong
    assert (wrong.name, wrong.note) == ("z", "the sign")
    assert jnp.isfinite(jax.grad(called)(w)).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_under_vmap_the_quantity_is_that_of_all_examples(dtype):
    X, w = np.random.default_rng(0).normal(size=(5, 3)), np.array([0.3, -1.0, 2.0])

    def objective(w, X):
        return jax.vmap(lambda x: jnp.tanh(tap("z", (w * x).sum())))(X).sum()

    def by_hand(w, X, factor=1):
        d = factor * (1 - np.tanh(X @ w) ** 2)
        return d @ X, {"z": d}

    assert gradient(by_hand, objective, w, X, dtype=dtype).ok
    (wrong,) = gradient(partial(by_hand, factor=2), objective, w, X, dtype=dtype).wrong
    assert (wrong.name, wrong.note) == ("z", "a factor 2 too large")


@pytest.mark.parametrize(("objective", "stacked"), [(rnn, False), (rnn_in_a_scan, True)])
def test_in_a_loop_every_step_is_judged_alone(objective, stacked):
    def by_hand(*args, **mistake):
        gradient, deltas = rnn_by_hand(*args, **mistake)
        return gradient, deltas if stacked else {name: list(of) for name, of in deltas.items()}

    assert len(gradient(by_hand, objective, *RNN).check().findings) == 2 * STEPS + 3
    (wrong,) = gradient(partial(by_hand, flat_at=3), objective, *RNN).wrong
    assert (wrong.name, wrong.note) == ("z[3]", "the derivative of tanh is missing")
    (wrong,) = gradient(partial(by_hand, forgotten_at=3), objective, *RNN).wrong
    assert wrong.name == "params['W']"
    assert wrong.note == "the term through z[3] is missing"


def test_what_is_returned_may_be_a_flat_dict_or_the_deltas_alone_or_some_of_them():
    hand, objective, params, *args = CASES["residual"]
    gradients, deltas = hand(params, *args)
    ways = [lambda *_: gradients | deltas, lambda *_: deltas, lambda *_: {"h": deltas["h"]}, lambda *_: gradients]
    for way, count in zip(ways, (6, 3, 1, 3)):
        assert len(gradient(way, objective, params, *args).check().findings) == count
    assert "tapped, and not returned: z, y" in str(gradient(ways[2], objective, params, *args))
    (wrong,) = gradient(lambda *_: {"h": deltas["h"] - deltas["y"]}, objective, params, *args).wrong
    assert wrong.note == "the term through the skip connection is missing"


def test_a_pytree_is_tapped_leaf_by_leaf():
    def objective(w):
        z = tap("z", {"a": w * w, "b": [3 * w]})
        return (z["a"] * z["b"][0]).sum()

    w = np.array([1.0, 2.0])
    right = {"a": 3 * w, "b": [w * w]}
    assert len(gradient(lambda w: (9 * w**2, {"z": right}), objective, w).check().findings) == 3
    wrong = gradient(lambda w: (9 * w**2, {"z": right | {"b": [w]}}), objective, w).wrong
    assert [finding.name for finding in wrong] == ["z['b'][0]"]


@pytest.mark.parametrize(
    ("deltas", "name", "note"),
    [
        ({"y9": 0.0}, "the δ's", "'y9' is not tapped; tapped: h, z, y; write tap('y9', value) in the objective"),
        ({"y": np.ones((2, 2))}, "y", "shape (2, 2), expected (5, 4)"),
        ({"z": "no array"}, "the δ's", "'z': expected an array"),
        ({"y": np.full((5, 4), np.nan)}, "y", "not finite"),
    ],
)
def test_what_is_no_delta_is_a_finding_and_no_other_is_accused(deltas, name, note):
    hand, objective, params, *args = CASES["residual"]
    gradients, right = hand(params, *args)
    (wrong,) = gradient(lambda *_: (gradients, right | deltas), objective, params, *args).wrong
    assert wrong.name == name
    assert note in wrong.note


def test_deltas_that_differ_from_call_to_call_are_a_finding():
    hand, objective, params, *args = CASES["residual"]
    random = np.random.default_rng(0)

    def noisy(*given):
        gradient, deltas = hand(*given)
        return gradient, deltas | {"z": deltas["z"] * (1 + 1e-14 * random.normal())}

    (wrong,) = gradient(noisy, objective, params, *args).wrong
    assert "not deterministic" in wrong.note


def test_a_gradient_alone_is_judged_wherever_the_taps_are():
    def objective(w):
        return jax.lax.cond(w.sum() > 0, lambda w: tap("z", w * w).sum(), lambda w: w.sum(), w)

    assert gradient(lambda w: 2 * w, objective, jnp.ones(3)).ok


def test_a_loop_without_a_fixed_number_of_steps_is_refused():
    def objective(w):
        return jax.lax.fori_loop(0, jnp.round(w[0]).astype(int), lambda i, z: tap("z", z * w), w).sum()

    with pytest.raises(NotImplementedError, match="tap: it is inside a while"):
        gradient(lambda w: (w, {"z": w}), objective, jnp.ones(2))


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="name: expected a string, got 1; write tap"):
        tap(1, jnp.ones(2))
