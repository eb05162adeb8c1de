"""The interactive page in a real Chromium: keys, clicks, labels, widths, dark mode, and a silent console."""

import jax
import numpy as np
import pytest

import fnn
from browser import needs_browser, run
from test_page import WRONG, X, Y, graph, layers

pytestmark = [pytest.mark.project, pytest.mark.process, needs_browser]
STEP = """const key = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const title = () => document.querySelector("#line h2").textContent.match(/Step (\\d+) of (\\d+)/).slice(1).map(Number);
const at = (name) => document.querySelector(name);
const click = (element) => element.dispatchEvent(new MouseEvent("click", {bubbles: true}));
"""


def written(value) -> str:
    return f"{value:.4g}".replace("-", "−")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    digit = layers((784, 16, 10))
    x = np.linspace(0, 1, 784, dtype=np.float32)
    made = {
        "small": fnn.explain(layers(), X, Y),
        "wrong": fnn.explain(layers(), X, Y, rules=WRONG),
        "graph": fnn.explain(graph(), X[:1], Y),
        "digit": fnn.explain(digit, x, 3, loss=fnn.SoftmaxCrossEntropy()),
        "deep": fnn.explain(layers((3, *[9] * 12, 1)), np.ones(3, np.float32), Y),
        "crowd": fnn.explain(
            fnn.graph.Graph.layered((5, 60, 9, 2), skips=[(0, 3)]).init(jax.random.key(0)),
            np.ones(5, np.float32),
            np.ones(2, np.float32),
        ),
    }
    return {name: explanation.page(folder / f"{name}.html") for name, explanation in made.items()}


def test_the_arrow_keys_step_and_home_and_end_jump(pages):
    script = """const seen = [title()[0]];
    for (const name of ["ArrowLeft", "ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home"]) {
      key(name); seen.push(title()[0]); }
    await new Promise((done) => setTimeout(done, 400));
    return [seen, title()[1], location.hash];"""
    (seen, steps, address), console = run(pages["small"], STEP + script)
    assert seen == [1, 1, 2, 3, 2, steps, steps, 1]
    assert address == "#step=1"
    assert not console


def test_a_step_shows_its_numbers_in_the_network_and_the_last_one_the_update(pages):
    script = """key("End"); const update = at("#line").textContent;
    return [update, document.querySelectorAll(".neuron.now").length, at("[aria-current]").textContent];"""
    (update, now, part), _ = run(pages["small"], STEP + script)
    assert "η = 0.1" in update
    assert now == 3 + 1
    assert part == "update"


def test_a_click_on_a_neuron_or_a_weight_shows_its_equation_with_its_numbers(pages):
    explanation = fnn.explain(layers(), X, Y)
    found = {equation.left: equation.value for equation in explanation.equations}
    script = """key("End"); click(at('[data-neuron="3"]')); const neuron = at("#panel").textContent;
    click(at('#panel [data-arrow]')); const linked = at("#panel h2").textContent;
    click(at('.arrow[data-arrow="6"]')); const weight = at("#panel").textContent;
    key("Escape"); return [neuron, linked, weight, at("#panel h2").textContent];"""
    (neuron, linked, weight, nothing), console = run(pages["small"], STEP + script)
    assert "Neuron 2 of layer 1" in neuron
    assert "z12 = W12,1 a01 + W12,2 a02 + b12" in neuron
    for value in (found["z^{1}"][1], found["a^{1}"][1], found[r"\delta^{1}"][1]):
        assert written(value) in neuron
    assert linked == "Weight W12,1"
    assert "Weight W21,1" in weight
    assert written(found[r"\partial C/\partial W^{2}"][0, 0]) in weight
    assert nothing == "Nothing chosen"
    assert not console


def test_a_wrong_rule_is_red_with_words_and_from_its_step_on(pages):
    script = """const seen = [];
    const steps = title()[1];
    for (let i = 1; i <= steps; i++) { seen.push([at("#line").classList.contains("wrong"),
      document.querySelectorAll(".neuron.wrong").length]); key("ArrowRight"); }
    click(at("#parts .wrong"));
    return [seen, at("#line").textContent, at("#parts .wrong").textContent, getComputedStyle(at("#line")).borderColor,
      at('[data-neuron="2"]').getAttribute("aria-label")];"""
    (seen, line, part, colour, label), console = run(pages["wrong"], STEP + script)
    (bad,) = [i for i, (wrong, _) in enumerate(seen) if wrong]
    assert [count for _, count in seen] == [0] * bad + [3] * (len(seen) - bad)
    assert "✗ Wrong: looks like: sigma'(z[1]) is missing" in line
    assert part == "✗ backward"
    assert colour == "rgb(192, 31, 47)"
    assert label.endswith(", wrong")
    assert not console


@pytest.mark.parametrize("name", ["small", "wrong", "graph", "digit", "deep", "crowd"])
@pytest.mark.parametrize("width", [390, 1366])
def test_no_step_scrolls_sideways_and_the_console_is_silent(pages, name, width):
    script = """const widths = []; const steps = title()[1];
    for (let i = 0; i < steps; i++) { widths.push(document.documentElement.scrollWidth); key("ArrowRight"); }
    for (const neuron of document.querySelectorAll(".neuron, .heat")) { click(neuron);
      widths.push(document.documentElement.scrollWidth); }
    return [Math.max(...widths), innerWidth];"""
    (widest, window), console = run(pages[name], STEP + script, width=width)
    assert widest <= window == width
    assert not console


def test_everything_has_a_label_and_can_be_reached_by_keyboard(pages):
    script = """const named = (one) => one.getAttribute("aria-label") || one.textContent.trim();
    const without = [...document.querySelectorAll("button, input, [role], [tabindex]")]
      .filter((one) => !named(one)).map((one) => one.outerHTML);
    const neuron = at('[data-neuron="4"]'); neuron.focus();
    const focused = document.activeElement === neuron;
    neuron.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
    return [without, focused, at("#panel h2").textContent, neuron.getAttribute("aria-label"),
      at("#line").getAttribute("aria-live"), document.documentElement.lang];"""
    (without, focused, chosen, label, live, lang), _ = run(pages["small"], STEP + script, address="step=2")
    assert not without
    assert focused
    assert chosen == "Neuron 3 of layer 1"
    assert label.startswith("neuron 3 of layer 1, z13 = ")
    assert (live, lang) == ("polite", "en")


def test_a_large_layer_is_a_heat_map_whose_neurons_can_be_chosen(pages):
    script = """const heat = at(".heat");
    heat.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
    const largest = at("#panel h2").textContent, field = at("#which");
    field.value = "5"; field.dispatchEvent(new Event("change")); const fifth = at("#panel").textContent;
    const box = heat.querySelector("image").getBoundingClientRect();
    heat.dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: box.left + 1.5 * box.width / 28,
      clientY: box.top + 2.5 * box.height / 28}));
    const clicked = at("#panel h2").textContent; key("End"); click(at('[data-neuron="784"]'));
    const maps = document.querySelectorAll("#panel canvas").length;
    return [largest, fifth, clicked, maps, heat.getAttribute("aria-label")];"""
    (largest, fifth, clicked, maps, label), console = run(pages["digit"], STEP + script)
    assert largest == "Input 784"
    assert "= 0.005109" in fifth
    assert clicked == f"Input {2 * 28 + 1 + 1}"
    assert maps == 2
    assert "heat map of 784 neurons" in label
    assert not console


def test_the_page_is_dark_where_the_reader_wants_it_and_legible_in_both(pages):
    script = """const style = getComputedStyle(document.body);
    const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).reduce((sum, c, i) =>
      sum + [0.2126, 0.7152, 0.0722][i] * ((c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4), 0);
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const card = getComputedStyle(at("#line")).backgroundColor;
    const texts = [at("#line h2"), at(".hint"), at(".checked"), at(".wrongnote")];
    const contrasts = texts.map((one) => ratio(light(getComputedStyle(one).color), light(card)));
    return [light(style.backgroundColor), ...contrasts];"""
    for dark in (False, True):
        (ground, *contrasts), _ = run(pages["wrong"], 'at("#parts .wrong").click();\n'.join([STEP, script]), dark=dark)
        assert (ground < 0.05) is dark
        assert min(contrasts) > 4.5


def test_the_address_opens_a_step_and_what_was_chosen(pages):
    (title, chosen), _ = run(
        pages["graph"], STEP + 'return [title()[0], at("#panel h2").textContent];', address="step=3&neuron=2"
    )
    assert (title, chosen) == (3, "Neuron k")
    (title, chosen), console = run(
        pages["graph"], STEP + 'return [title()[0], at("#panel h2").textContent];', address="step=999&neuron=-4"
    )
    assert chosen == "Nothing chosen"
    assert title > 3
    assert not console


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1366])
def test_in_a_notebook_the_page_steps_inside_a_frame_of_its_own(width, dark, tmp_path):
    script = """key("ArrowRight"); click(at('[data-neuron="3"]'));
    await new Promise((done) => setTimeout(done, 400));
    let outside = "reached"; try { parent.document.title } catch { outside = "closed"; }
    return [title()[0], at("#panel h2").textContent, document.documentElement.scrollWidth <= innerWidth, innerWidth,
      innerHeight, outside];"""
    notebook = tmp_path / "notebook.html"
    notebook.write_text(
        '<meta name="viewport" content="width=device-width">' + fnn.explain(layers(), X, Y, rules=WRONG)._repr_html_()
    )
    (step, chosen, fits, wide, high, outside), console = run(
        notebook, STEP + script, width=width, dark=dark, in_frame=True
    )
    assert (step, chosen) == (2, "Neuron 2 of layer 1")
    assert fits
    assert 300 < wide < max(width, 500)
    assert 700 < high < 800
    assert outside == "closed"
    assert not console
