"""verify.network: every equation of a network, judged alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from experiments import find_the_mistake
from fnn import verify
from fnn.batchnorm import BatchNorm
from problems import ACTIVATIONS, COUPLED, FROM_Z, KINDS, KINKED, LOSS_KINDS, LOSSES, SMOOTH, and_slow, compilations

RULES, LOSS = fnn.RULES, fnn.SquaredError()
LIKE_THE_PROBES = (5, 8, 6, 9, 5)  # wide as the probes are, so that programs serve the network itself and a probe


def array(values):
    return jnp.asarray(np.asarray(values, np.float32), jnp.float32)


def network(sizes, *activations, batch_norm=None):
    """A random network; the last activation is the output's."""
    random, layers = np.random.default_rng(0), []
    for n_in, n_out, activation in zip(sizes, sizes[1:], activations):
        norm = BatchNorm(array(np.ones(n_out)), array(np.zeros(n_out)), gradient=batch_norm) if batch_norm else None
        W, b = array(random.normal(size=(n_out, n_in)) / np.sqrt(n_in)), array(np.zeros(n_out))
        layers.append(fnn.Dense(W, b, activation, norm if len(layers) < len(activations) - 1 else None))
    return tuple(layers)


def hidden_network(*hidden, **options):
    """With these hidden activations, and 3 linear outputs."""
    return network((*LIKE_THE_PROBES[: len(hidden) + 1], 3), *hidden, fnn.Identity(), **options)


PARAMS = network((6, 5, 4, 3), fnn.Tanh(), fnn.Tanh(), fnn.Identity())
ONE_LAYER = network((6, 3), fnn.Tanh())
X, Y = array(np.random.default_rng(1).normal(size=(17, 6))), array(np.random.default_rng(2).uniform(size=(17, 3)))
FORGETFUL = RULES._replace(hidden_delta=lambda g, activation, z, a: g)

# -- right derivations -----------------------------------------------------------------------------------------

OF_EVERY_KIND = network((*LIKE_THE_PROBES[:4], 3), FROM_Z, KINKED, COUPLED, SMOOTH)
FLAT = (fnn.Threshold(), fnn.Sign())  # below these every derivative is zero
OTHERS = [activation for activation in ACTIVATIONS if activation not in (*FLAT, *KINDS)]


def names(activations) -> str:
    return ", ".join(type(activation).__name__ for activation in activations)


@functools.cache
def of_every_kind():
    return verify.network(OF_EVERY_KIND, loss=LOSS)


def test_an_activation_of_every_kind_passes_all_probes():
    """Of a and of z, with a kink, and not elementwise: in one network, because every layer is judged alone."""
    assert {finding.status for finding in of_every_kind().findings} == {"ok"}, str(of_every_kind())


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [OTHERS[start : start + 4] for start in range(0, len(OTHERS), 4)], ids=names)
def test_so_does_every_other(hidden):
    report = verify.network(hidden_network(*hidden), loss=LOSS)
    assert {finding.status for finding in report.findings} == {"ok"}, str(report)


@pytest.mark.slow
@pytest.mark.parametrize("flat", FLAT, ids=repr)
def test_so_does_one_whose_derivative_is_zero(flat):
    report = verify.network(hidden_network(flat), loss=LOSS)
    assert not report.wrong, str(report)


@pytest.mark.parametrize("loss", and_slow([*LOSS_KINDS, fnn.CrossEntropy(categorical=True)], LOSSES), ids=repr)
def test_every_loss_passes_all_probes(loss):
    probabilities = isinstance(loss, fnn.CrossEntropy)
    output = (fnn.Softmax() if loss.categorical else fnn.Sigmoid()) if probabilities else fnn.Identity()
    report = verify.network(network((5, 3), output), loss=loss)
    assert report.ok, str(report)


@pytest.mark.parametrize("gradient", and_slow(["full"], ["fixed"]))
@pytest.mark.parametrize("dtype", and_slow(["float64"], ["float32"]))
def test_batch_norms_pass_all_probes(gradient, dtype):
    params = hidden_network(fnn.ReLU(), batch_norm=gradient)
    assert verify.network(params, loss=LOSS, dtype=dtype).ok


def test_units_at_a_kink_are_counted_and_any_subgradient_is_right():
    def half(g, activation, z, a):
        if activation != KINKED:
            return RULES.hidden_delta(g, activation, z, a)
        return g * jnp.where(z > 0, 1.0, jnp.where(z == 0, 0.5, 0.0)).astype(z.dtype)

    for report in (of_every_kind(), verify.network(OF_EVERY_KIND, loss=LOSS, rules=RULES._replace(hidden_delta=half))):
        assert report.ok
        assert "values at a kink were compared with both one-sided derivatives" in str(report)


def test_the_check_is_deterministic_and_leaves_x64_alone():
    first, second = str(of_every_kind()), str(verify.network(OF_EVERY_KIND, loss=LOSS))
    assert first == second
    assert "float64, highest matmul precision, seed 0" in first
    assert not jax.config.jax_enable_x64


def test_a_derivative_that_vanishes_everywhere_is_called_zero_and_not_ok():
    params = network((6, 5, 4, 3), fnn.Threshold(), fnn.Tanh(), fnn.Identity())
    report = verify.network(params, X, Y, loss=LOSS, probes=False)
    assert {f.status for f in report.findings if f.layer == 1} == {"zero"}
    dead = verify.network(network((6, 3), fnn.Sign()), X, Y, loss=LOSS, probes=False)
    assert not dead.ok
    with pytest.raises(verify.DerivationError, match="nothing was checked"):
        dead.check()


# -- what is said of mistakes ----------------------------------------------------------------------------------


@functools.cache
def forgetful():
    return verify.network(PARAMS, X, Y, loss=LOSS, rules=FORGETFUL)


def test_the_report_names_the_equation_the_layer_the_entry_and_the_mistake():
    report = forgetful()
    assert [(finding.kind, finding.layer) for finding in report.wrong] == [("hidden_delta", 2), ("hidden_delta", 1)]
    finding = report.wrong[0]
    assert finding.note == "sigma'(z[2]) is missing"
    trace, deltas = fnn.trace(PARAMS, X), fnn.deltas(PARAMS, X, Y)
    np.testing.assert_allclose(finding.oracle, deltas[1][finding.index], rtol=1e-4)
    np.testing.assert_allclose(finding.hand * (1 - trace[1].a[finding.index] ** 2), finding.oracle, rtol=1e-4)
    with pytest.raises(verify.DerivationError) as raised:
        report.check()
    message = str(raised.value)
    assert message.startswith("2 of 12 equations are wrong (6 others differ only because they use them)")
    assert "(2b) delta[2] = g[2] * sigma'(z[2])     local error" in message
    assert f"worst at example {finding.index[0]}, unit {finding.index[1]}: hand" in message
    assert "looks like: sigma'(z[1]) is missing" in message


def test_what_only_suffers_from_a_mistake_is_wrong_end_to_end_and_right_alone():
    report = forgetful()
    (suffering,) = [f for f in report.findings if f.kind == "weight_gradient" and f.layer == 1]
    assert suffering.ok
    assert suffering.end_to_end > 1e-3
    assert all(f.end_to_end < 1e-12 for f in report.findings if f.layer == 3)


def test_a_rule_that_raises_is_a_finding_and_not_a_crash():
    def broken(delta):
        raise ZeroDivisionError("oh")

    report = verify.network(ONE_LAYER, X, Y, loss=LOSS, rules=RULES._replace(bias_gradient=broken))
    assert {f.kind for f in report.wrong} == {"bias_gradient"}
    assert report.wrong[0].note == "it raises ZeroDivisionError: oh"


def test_a_rule_that_runs_in_float32_only_is_judged_in_float32():
    def single(delta):
        if delta.dtype != jnp.float32:
            raise TypeError("float32 only")
        return delta.sum(axis=0)

    report = verify.network(ONE_LAYER, X, Y, loss=LOSS, rules=RULES._replace(bias_gradient=single))
    assert report.ok
    assert report.dtype == "float32"
    assert "judged in float32" in str(report)
    assert "float32 only" in str(report)


def test_the_notebook_table_is_green_and_red_with_the_formula_of_each_equation():
    page = forgetful()._repr_html_()
    assert page.count("#f8dada") == 2
    assert page.count("#e2f2e2") == 10
    assert "delta[3]^T a[2]" in page


def test_a_terminal_gets_colour_and_a_pipe_does_not(monkeypatch):
    report = forgetful()
    assert "\033[" not in str(report)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[31mWRONG" in str(report)
    assert "\033[32mok" in str(report)


def test_assert_network_fails_with_the_report():
    verify.network(PARAMS, X, Y, loss=LOSS).check()
    with pytest.raises(verify.DerivationError, match="looks like"):
        verify.network(PARAMS, X, Y, loss=LOSS, rules=FORGETFUL).check()


WITHOUT_A_NOTE = {
    "absolute-weights", "derivative-of-sigmoid", "derivative-of-tanh", "largest-term", "shifted-examples",
    "square-of-z", "square-outside", "summed-too-early",
}  # fmt: skip


@pytest.mark.project
@pytest.mark.parametrize("mistake", find_the_mistake.MISTAKES)
def test_the_lecture_program_shows_every_mistake(mistake, capsys):
    rule = find_the_mistake.MISTAKES[mistake].rule
    layer = "3" if rule == "output_delta" else "2"
    find_the_mistake.main(["--mistake", mistake, "--layer", layer])
    said = capsys.readouterr().out
    assert "DerivationError: 1 of 12 equations is wrong" in said
    assert ("looks like" in said) == (mistake not in WITHOUT_A_NOTE)


# -- the data --------------------------------------------------------------------------------------------------


def test_masks_given_with_data_are_used():
    masks = tuple(fnn.Mask(arrows=array(np.arange(layer.W.size).reshape(layer.W.shape) > 4)) for layer in ONE_LAYER)
    assert verify.network(ONE_LAYER, X, Y, loss=LOSS, masks=masks).ok
    forgetful = RULES._replace(weight_gradient=lambda delta, a_in, mask=None: delta.T @ a_in)
    report = verify.network(ONE_LAYER, X, Y, loss=LOSS, masks=masks, rules=forgetful)
    assert {f.note for f in report.wrong} == {"the mask of the arrows is missing"}


def test_one_example_and_labels_are_data_too():
    assert verify.network(ONE_LAYER, X[0], Y[0], loss=LOSS).ok
    logits = network((6, 3), fnn.Identity())
    assert verify.network(logits, X, np.arange(17) % 3, loss=fnn.SoftmaxCrossEntropy()).ok


def test_a_check_compiles_nothing():
    with compilations() as programs:
        verify.network(PARAMS, X, Y, loss=LOSS)
    assert not programs


def test_probes_hold_the_cases_that_betray_mistakes():
    cases = {case.name: case for case in verify.probes(hidden_network(fnn.LeakyReLU(0.3)))}
    assert len(cases) == 9
    sizes = [len(cases["rectangular"].x), *(layer.W.shape[1] for layer in cases["rectangular"].params)]
    assert len(set(sizes)) == len(sizes)
    assert {cases["square"].x.shape, *(layer.W.shape for layer in cases["square"].params)} == {(4, 4)}
    assert len(cases["one example"].x) == 1
    assert not np.allclose(cases["targets of any size"].y.sum(axis=1), 1)
    kinks, huge = (fnn.trace(cases[name].params, cases[name].x) for name in ("at the kinks", "huge logits"))
    assert {0.0, 0.3, 1.0, -1.0} <= {round(float(z), 6) for z in kinks[0].z[0]}
    assert np.abs(huge[-1].a).max() > 500
    assert {float(v) for v in np.unique(cases["masks"].masks[1].units)} == {0.0, 2.0}


def test_a_wrong_forward_rule_is_named_and_right_ones_pass():
    params = fnn.init(jax.random.key(0), (3, 4, 2), activation=fnn.Tanh(), batch_norm="full")
    params = jax.tree.map(lambda leaf: leaf + 0.5, params)  # biases are drawn as 0
    x, y = (np.random.default_rng(0).normal(size=(5, n)).astype("float32") for n in (3, 2))

    def check(**forward):
        return verify.network(params, x, y, loss=fnn.SquaredError(), rules=fnn.RULES._replace(**forward))

    without_bias = check(affine=lambda a_in, W, b: a_in @ W.T)
    assert {(finding.kind, finding.layer) for finding in without_bias.wrong} == {("affine", 1), ("affine", 2)}
    doubled = check(normalise=lambda norm, psi: 2 * fnn.RULES.normalise(norm, psi))
    assert {(finding.kind, finding.layer) for finding in doubled.wrong} == {("normalise", 1)}
    assert check(affine=lambda a_in, W, b: (W @ a_in.T).T + b).ok
