"""verify.network: every equation of a network, judged alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from experiments import find_the_mistake
from fnn import verify
from problems import ACTIVATIONS, LOSSES, name, some

KEY = jax.random.key(0)
PARAMS = fnn.init(KEY, (6, 5, 4, 3), activation=fnn.Tanh())
X, Y = jax.random.normal(jax.random.key(1), (17, 6)), jax.random.uniform(jax.random.key(2), (17, 3))
LOSS = fnn.SquaredError()
FORGETFUL = fnn.RULES._replace(hidden_delta=lambda g, activation, z, a: g)


@pytest.mark.parametrize("activation", some(ACTIVATIONS, every=4), ids=name)
def test_every_activation_passes_all_probes(activation):
    report = verify.network(fnn.init(KEY, (6, 5, 3), activation=activation), loss=LOSS)
    assert not report.wrong, str(report)


@pytest.mark.parametrize("loss", some(LOSSES), ids=name)
def test_every_loss_passes_all_probes(loss):
    probabilities = isinstance(loss, fnn.CrossEntropy)
    output = (fnn.Softmax() if loss.categorical else fnn.Sigmoid()) if probabilities else fnn.Identity()
    report = verify.network(fnn.init(KEY, (6, 5, 3), output=output), loss=loss)
    assert report.ok, str(report)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("gradient", "dtype"),
    [
        ("full", "float64"),
        pytest.param("fixed", "float32", marks=SLOW),
        pytest.param("full", "float32", marks=SLOW),
        pytest.param("fixed", "float64", marks=SLOW),
    ],
)
def test_batch_norms_pass_all_probes(gradient, dtype):
    params = fnn.init(KEY, (6, 5, 4, 3), activation=fnn.ReLU(), batch_norm=gradient)
    assert verify.network(params, loss=LOSS, dtype=dtype).ok


def test_the_report_names_the_equation_the_layer_the_entry_and_the_mistake():
    report = verify.network(PARAMS, X, Y, loss=LOSS, rules=FORGETFUL)
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
    report = verify.network(PARAMS, X, Y, loss=LOSS, rules=FORGETFUL)
    (suffering,) = [f for f in report.findings if f.kind == "weight_gradient" and f.layer == 1]
    assert suffering.ok
    assert suffering.end_to_end > 1e-3
    assert all(f.end_to_end < 1e-12 for f in report.findings if f.layer == 3)


def test_a_rule_that_raises_is_a_finding_and_not_a_crash():
    def broken(delta):
        raise ZeroDivisionError("oh")

    report = verify.network(PARAMS, X, Y, loss=LOSS, rules=fnn.RULES._replace(bias_gradient=broken))
    assert {f.kind for f in report.wrong} == {"bias_gradient"}
    assert report.wrong[0].note == "it raises ZeroDivisionError: oh"


def test_a_rule_that_runs_in_float32_only_is_judged_in_float32():
    def single(delta):
        if delta.dtype != jnp.float32:
            raise TypeError("float32 only")
        return delta.sum(axis=0)

    report = verify.network(PARAMS, X, Y, loss=LOSS, rules=fnn.RULES._replace(bias_gradient=single))
    assert report.ok
    assert report.dtype == "float32"
    assert "judged in float32" in str(report)
    assert "float32 only" in str(report)


def test_units_at_a_kink_are_counted_and_any_subgradient_is_right():
    params = fnn.init(KEY, (6, 5, 3), activation=fnn.ReLU())
    half = fnn.RULES._replace(
        hidden_delta=lambda g, activation, z, a: g * jnp.where(z > 0, 1.0, jnp.where(z == 0, 0.5, 0.0)).astype(z.dtype)
    )
    for rules in (fnn.RULES, half):
        report = verify.network(params, loss=LOSS, rules=rules)
        assert report.ok
        assert "values at a kink were compared with both one-sided derivatives" in str(report)


def test_a_derivative_that_vanishes_everywhere_is_called_zero_and_not_ok():
    params = fnn.init(KEY, (6, 5, 3), activation=fnn.Threshold())
    report = verify.network(params, loss=LOSS)
    assert {f.status for f in report.findings if f.layer == 1} == {"zero"}
    dead = verify.network(fnn.init(KEY, (6, 3), output=fnn.Sign()), loss=LOSS)
    assert not dead.ok
    with pytest.raises(verify.DerivationError, match="nothing was checked"):
        dead.check()


def test_masks_given_with_data_are_used():
    masks = tuple(fnn.Mask(arrows=jnp.ones_like(layer.W).at[0].set(0)) for layer in PARAMS)
    assert verify.network(PARAMS, X, Y, loss=LOSS, masks=masks).ok
    forgetful = fnn.RULES._replace(weight_gradient=lambda delta, a_in, mask=None: delta.T @ a_in)
    report = verify.network(PARAMS, X, Y, loss=LOSS, masks=masks, rules=forgetful)
    assert {f.note for f in report.wrong} == {"the mask of the arrows is missing"}


def test_one_example_and_labels_are_data_too():
    assert verify.network(PARAMS, X[0], Y[0], loss=LOSS).ok
    assert verify.network(PARAMS, X, np.arange(17) % 3, loss=fnn.SoftmaxCrossEntropy()).ok


def test_the_check_is_deterministic_and_leaves_x64_alone():
    first, second = (str(verify.network(PARAMS, loss=LOSS)) for _ in range(2))
    assert first == second
    assert "float64, highest matmul precision, seed 0" in first
    assert not jax.config.jax_enable_x64


def test_probes_hold_the_cases_that_betray_mistakes():
    cases = {case.name: case for case in verify.probes(fnn.init(KEY, (6, 5, 4, 3), activation=fnn.LeakyReLU(0.3)))}
    assert len(cases) == 8
    sizes = [len(cases["rectangular"].x), *(layer.W.shape[1] for layer in cases["rectangular"].params)]
    assert len(set(sizes)) == len(sizes)
    assert {cases["square"].x.shape, *(layer.W.shape for layer in cases["square"].params)} == {(4, 4)}
    assert len(cases["one example"].x) == 1
    assert not np.allclose(cases["targets of any size"].y.sum(axis=1), 1)
    kinks = fnn.trace(cases["at the kinks"].params, cases["at the kinks"].x)[0].z
    assert {0.0, 0.3, 1.0, -1.0} <= {round(float(z), 6) for z in kinks[0]}
    assert np.abs(fnn.forward(cases["huge logits"].params, cases["huge logits"].x)).max() > 500
    assert {float(v) for v in np.unique(cases["masks"].masks[1].units)} == {0.0, 2.0}


def test_the_notebook_table_is_green_and_red_with_the_formula_of_each_equation():
    page = verify.network(PARAMS, X, Y, loss=LOSS, rules=FORGETFUL)._repr_html_()
    assert page.count("#f8dada") == 2
    assert page.count("#e2f2e2") == 10
    assert "delta[3]^T a[2]" in page


def test_a_terminal_gets_colour_and_a_pipe_does_not(monkeypatch):
    report = verify.network(PARAMS, X, Y, loss=LOSS, rules=FORGETFUL)
    assert "\033[" not in str(report)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[31mWRONG" in str(report)
    assert "\033[32mok" in str(report)


def test_assert_network_fails_with_the_report():
    verify.assert_network(PARAMS, X, Y, loss=LOSS)
    with pytest.raises(verify.DerivationError, match="looks like"):
        verify.assert_network(PARAMS, X, Y, loss=LOSS, rules=FORGETFUL)


def test_a_second_check_compiles_nothing():
    verify.network(PARAMS, X, Y, loss=LOSS)
    from fnn.verify.oracle import quantities

    before = quantities._cache_size()
    verify.network(PARAMS, X + 1, Y, loss=LOSS)
    assert quantities._cache_size() == before


@pytest.mark.parametrize("mistake", find_the_mistake.MISTAKES)
def test_the_lecture_program_shows_every_mistake(mistake, capsys):
    rule = find_the_mistake.MISTAKES[mistake][0]
    layer = "3" if rule == "output_delta" else "2"
    find_the_mistake.main(["--mistake", mistake, "--layer", layer])
    said = capsys.readouterr().out
    assert "DerivationError: 1 of 12 equations is wrong" in said
    assert ("looks like" in said) == (mistake != "absolute-weights")
