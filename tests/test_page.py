"""The interactive page: one file that holds the values of the same lines, written whole, and refused by name."""

import json
import re
from functools import cache
from html import unescape

import jax
import numpy as np
import pytest

import fnn
from random_network import network

X, Y = np.array([0.5, -1.0], np.float32), np.ones(1, np.float32)


def without_slope(g, activation, z, a):
    """(2b) without σ'."""
    return g


WRONG = fnn.RULES._replace(hidden_delta=without_slope)


def layers(sizes=(2, 3, 1), **options):
    return network(sizes, activation=fnn.Tanh(), dtype="float32", **options)


def graph():
    arrows = [("x", "<h>"), ("<h>", "y"), ("x", "y"), ("<h>", "k"), ("k", "y")]
    return fnn.graph.Graph(arrows, fnn.Tanh(), ["x"], ["y"]).init(jax.random.key(0))


@cache
def wrong_layers():
    return fnn.explain(layers(), X, Y, rules=WRONG)


def held(explanation, tmp_path, **options):
    """The page's text, and the network in it."""
    text = explanation.page(tmp_path / "page.html", **options).read_text(encoding="utf-8")
    return text, json.loads(re.search(r'id="network">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_the_values_of_the_lines(tmp_path):
    explanation = fnn.explain(layers(), X, Y)
    _, net = held(explanation, tmp_path, rate=0.5)
    found = {equation.left: equation.value for equation in explanation.equations}
    (layer, _), values = layers(), net["values"]
    np.testing.assert_allclose(values["a"], [*X, *found["a^{1}"], *found["a^{2}"]], rtol=1e-4)
    np.testing.assert_allclose(values["delta"][2:], [*found[r"\delta^{1}"], *found[r"\delta^{2}"]], rtol=1e-4)
    np.testing.assert_allclose(values["g"][:2], found[r"\partial C/\partial x"], rtol=1e-4)
    block, change = net["blocks"][0], found[r"\partial C/\partial W^{1}"]
    np.testing.assert_allclose(block["w"], np.ravel(layer.W), rtol=1e-4)
    np.testing.assert_allclose(block["dw"], change.ravel(), rtol=1e-4)
    np.testing.assert_allclose(block["new"], np.ravel(layer.W - 0.5 * change), rtol=1e-4)
    assert net["target"] == [1.0]


def test_the_steps_go_forward_to_the_loss_back_to_the_gradients_and_to_an_update(tmp_path):
    for explanation in (fnn.explain(layers(), X, Y), fnn.explain(graph(), X[:1], Y)):
        _, net = held(explanation, tmp_path)
        parts = [one["part"] for one in net["steps"]]
        assert list(dict.fromkeys(parts)) == ["forward", "loss", "backward", "gradients", "update"]
        assert parts == sorted(parts, key=list(dict.fromkeys(parts)).index)
        computed = {k for one in net["steps"] if one["quantity"] == "delta" for k in one["neurons"]}
        assert computed >= set(range(net["columns"][0]["count"], len(net["names"])))


def test_the_values_of_a_graph_are_those_of_its_neurons(tmp_path):
    params = graph()
    _, net = held(fnn.explain(params, X[:1], Y), tmp_path)
    passed, lambdas = fnn.trace(params, X[:1]), fnn.deltas(params, X[:1], Y)
    for k, name in enumerate(params.graph.neurons):
        place = net["names"].index(name)
        np.testing.assert_allclose(net["values"]["a"][place], passed.a[k], rtol=1e-4)
        np.testing.assert_allclose(net["values"]["delta"][place], lambdas[k], rtol=1e-4)
    gradients = fnn.backprop(params, X[:1], Y)
    np.testing.assert_allclose(net["blocks"][0]["dw"], gradients.weights, rtol=1e-4)
    for (j, k), (of, to) in zip(params.graph.arrows, net["blocks"][0]["ends"]):
        assert [params.graph.neurons[j], params.graph.neurons[k]] == [net["names"][of], net["names"][to]]


def test_a_wrong_rule_is_said_in_every_form_and_only_where_verify_finds_it(tmp_path):
    explanation = wrong_layers()
    (bad,) = [equation for equation in explanation.equations if equation.wrong]
    assert bad.left == r"\delta^{1}"
    assert not explanation.ok
    assert "sigma'(z[1]) is missing" in bad.wrong
    np.testing.assert_array_equal(bad.value, bad.symbols["g^{1}"])  # what the rule computes
    assert "WRONG: looks like: sigma'(z[1]) is missing" in str(explanation)
    assert "1 of 8 equations is wrong" in str(explanation)
    assert "WRONG: looks like" in explanation._repr_html_()
    text, net = held(explanation, tmp_path)
    assert [one["text"] for one in net["steps"] if one["wrong"]] == ["δ¹ = g¹ ⊙ σ'(z¹)"]
    assert "1 of 8 equations is wrong" in text


def test_a_wrong_rule_is_found_in_a_graph_too(tmp_path):
    _, net = held(fnn.explain(graph(), X[:1], Y, rules=WRONG), tmp_path)
    bad = {net["names"][k] for one in net["steps"] if one["wrong"] for k in one["neurons"]}
    assert bad == {"<h>", "k"}


def raises_in_batches(delta):
    """(4) for one example only."""
    if len(delta) > 1:
        raise ValueError("one at a time")
    return delta[0]


def test_a_rule_that_raises_only_in_a_batch_is_said_too(tmp_path):
    rules = fnn.RULES._replace(bias_gradient=raises_in_batches)
    for params, x in ((layers(), X), (graph(), X[:1])):
        explanation = fnn.explain(params, x, Y, rules=rules)
        assert "one at a time" in str(explanation)
        text, _ = held(explanation, tmp_path)
        assert "one at a time" in text


def test_rules_of_another_precision_are_no_mistake(tmp_path):
    explanation = fnn.explain(layers(), X, Y, rules=fnn.BFLOAT16)
    assert explanation.ok
    assert "all 10 equations agree" in explanation.checked  # the forward rules are judged too
    assert '<p class="checked right">' in held(explanation, tmp_path)[0]


def test_a_notebook_shows_the_page_in_a_frame_and_the_equations_below(tmp_path):
    explanation = fnn.explain(layers(), X, Y)
    output = explanation._repr_html_()
    (frame,) = re.findall(r"<iframe ([^>]*)>", output)
    (text,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert unescape(text) == held(explanation, tmp_path)[0]
    assert f'title="{explanation.title}: step through the computation"' in frame
    assert 'sandbox="allow-scripts"' in frame
    assert output.count("<details><summary>2-3-1, 2 layers, one example: all equations</summary>") == 1


def test_a_notebook_shows_no_page_of_a_large_network_and_the_first_lines_of_a_long_table():
    large = fnn.explain(layers((100, 100, 2)), np.ones(100, np.float32), np.ones(2, np.float32))._repr_html_()
    assert "<iframe" not in large
    assert len(large) < 20_000
    assert ".page(" in large
    deep = fnn.explain(layers((2, *[2] * 60, 1)), X, Y)._repr_html_()
    assert deep.count('<tr><td style="text-align:left') <= 300
    assert re.search(r">and \d+ more; print\(...\) shows all<", deep)


def test_right_rules_are_not_said_to_be_wrong():
    explanation = fnn.explain(layers(), X, Y)
    assert explanation.ok
    assert not explanation.checked
    assert not any(equation.wrong for equation in explanation.equations)


def test_the_page_is_one_file_that_loads_nothing_and_no_name_ends_its_script(tmp_path):
    text, net = held(fnn.explain(graph(), X[:1], Y), tmp_path)
    assert "<h>" in net["names"]
    assert "<h>" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!data:)", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_numbers_that_json_does_not_have_are_words(tmp_path):
    params = (fnn.Dense(jax.numpy.full((1, 2), np.inf), jax.numpy.zeros(1), fnn.Identity()),)
    _, net = held(fnn.explain(params, X, Y), tmp_path)
    assert net["blocks"][0]["w"] == ["inf", "inf"]
    assert net["values"]["z"][2] == "nan"


def test_a_label_a_softmax_and_a_large_layer_have_a_page(tmp_path):
    params = layers((300, 50, 3), output=fnn.Softmax())
    _, net = held(fnn.explain(params, np.ones(300, np.float32), 2, loss=fnn.CrossEntropy()), tmp_path)
    assert [column["count"] for column in net["columns"]] == [300, 50, 3]
    assert net["target"]


def test_the_weights_of_a_huge_layer_are_left_out(tmp_path):
    _, net = held(fnn.explain(layers((1000, 201, 1)), np.ones(1000, np.float32), Y), tmp_path)
    assert "w" not in net["blocks"][0]
    assert len(net["blocks"][1]["w"]) == 201


def test_a_page_replaces_an_older_one_whole(tmp_path):
    file = tmp_path / "page.html"
    file.write_text("older")
    assert fnn.explain(layers(), X, Y).page(str(file)) == file
    assert file.read_text(encoding="utf-8").endswith("</html>\n")
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize("path", [None, "", 3, b""], ids=repr)
def test_what_is_no_path_is_refused_by_name(path):
    with pytest.raises((TypeError, ValueError), match=r"path: expected the path of an HTML file.*backprop\.html"):
        fnn.explain(layers(), X, Y).page(path)


def test_a_folder_and_a_missing_folder_are_refused_and_a_wrong_rate_loses_nothing(tmp_path):
    explanation = fnn.explain(layers(), X, Y)
    for path in (tmp_path, tmp_path / "missing" / "page.html"):
        with pytest.raises(ValueError, match=r"path: expected .* in a folder that exists"):
            explanation.page(path)
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=r"rate: "):
            explanation.page(tmp_path / "page.html", rate=rate)
    with pytest.raises(TypeError, match="rules: expected fnn.Rules"):
        fnn.explain(layers(), X, Y, rules=None)
    assert not list(tmp_path.iterdir())
