"""verify.stages on a directed acyclic graph: what a stage reads, whose cotangents add up, and forgotten branches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnn.verify import Stage, stages
from stages_cases import CHAIN, EXAMPLES, WIDTH, WRONG, normal, stage

X = normal(EXAMPLES, WIDTH)


def dense_pullback(W, x, y, y_bar):
    return x.T @ y_bar, y_bar @ W.T


def add_pullback(_, x, y, y_bar, weights=(1, 1)):
    return (), tuple(weight * y_bar for weight in weights)


def dense(name, of=None, pullback=dense_pullback):
    return Stage(name, lambda W, x: x @ W, pullback, normal(WIDTH, WIDTH), of)


def tanh(name, of=None):
    return Stage(name, lambda _, x: jnp.tanh(x), lambda _, x, y, y_bar: ((), (1 - y**2) * y_bar), of=of)


def add(name, of, weights=(1, 1)):
    return Stage(name, lambda _, x: x[0] + x[1], lambda *args: add_pullback(*args, weights), of=of)


def times(name, of, pullback=lambda _, x, y, y_bar: ((), (x[1] * y_bar, x[0] * y_bar))):
    return Stage(name, lambda _, x: x[0] * x[1], pullback, of=of)


def residual(weights=(1, 1), pullback=dense_pullback):
    """x + tanh(x W1) W2, and a tanh of it."""
    return [dense("W1"), tanh("a"), dense("W2", pullback=pullback), add("sum", ("x", "W2"), weights), tanh("out")]


def gated():
    """An LSTM's update of its cell: three values read x, and one of them is read twice."""
    return [
        dense("i", "x"), dense("g", "x"), tanh("g1", "g"), times("new", ("i", "g1")), dense("f", "x"),
        times("kept", ("f", "x")), add("c", ("kept", "new")), times("h", ("c", "f")),
    ]  # fmt: skip


@pytest.mark.parametrize("chain", [residual(), gated(), residual()[::-1] + [dense("again", "out")]])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_right_graph_passes_alone_and_end_to_end(chain, dtype):
    if chain[0].name == "out":  # in any order, where each says what it reads
        chain = [one._replace(of=of) for one, of in zip(chain, ["sum", ("x", "W2"), "a", "W1", "x", "out"])]
    report = stages(chain, X, dtype=dtype)
    assert report.check() is report
    assert all(finding.end_to_end < 1e-4 for finding in report.findings)


def test_end_to_end_cotangents_of_several_readers_add_up_to_autodiffs():
    """Every pull-back is right, so that all end-to-end errors vanish only if the sums are right, too."""
    wrong = [one if one.name != "f" else dense("f", "x", lambda W, x, y, g: (x.T @ g, 2 * g @ W.T)) for one in gated()]
    report = stages(wrong, X)
    assert [finding.name for finding in report.wrong] == ["f: x_bar"]
    assert all(finding.end_to_end < 1e-10 for finding in report.findings if finding.kind != "f")


def test_a_mistake_spoils_what_is_above_it_and_nothing_beside():
    wrong = times("new", ("i", "g1"), lambda _, x, y, g: ((), (x[0] * g, x[0] * g)))
    report = stages([wrong if one.name == "new" else one for one in gated()], X)
    assert [finding.name for finding in report.wrong] == ["new: x_bar[0] (of i)"]
    spoiled = {finding.kind for finding in report.findings if finding.end_to_end > 1e-6}
    assert spoiled == {"new", "i"}


def test_a_forgotten_skip_connection_is_called_so():
    report = stages(residual(weights=(0, 1)), X)
    assert [(finding.name, finding.note) for finding in report.wrong] == [
        ("sum: x_bar[0] (of x)", "the term through the skip connection is missing")
    ]


def test_so_is_one_of_several_in_a_longer_sum():
    def total(name, of, weights=None):
        weights = weights or [1] * len(of)
        return Stage(name, lambda _, x: sum(x), lambda _, x, y, g: ((), tuple(w * g for w in weights)), of=of)

    for forgotten, source in ((0, "x"), (1, "h1")):
        weights = [int(i != forgotten) for i in range(3)]
        chain = [dense("h1", "x"), total("h2", ("x", "h1")), total("h3", ("x", "h1", "h2"), weights)]
        (wrong,) = stages(chain, X).wrong
        assert wrong.name == f"h3: x_bar[{forgotten}] (of {source})"
        assert wrong.note == "the term through the skip connection is missing"


def test_the_other_branch_is_not_called_a_skip_connection():
    (wrong,) = stages(residual(weights=(1, 0)), X).wrong
    assert wrong.name == "sum: x_bar[1] (of W2)"
    assert wrong.note == "it is zero"


def test_a_forgotten_reader_that_multiplies_is_named():
    chain = [one if one.name != "kept" else times("kept", ("f", "x"), lambda _, x, y, g: ((), (x[1] * g, 0 * g)))
             for one in gated()]  # fmt: skip
    (wrong,) = stages(chain, X).wrong
    assert wrong.name == "kept: x_bar[1] (of x)"
    assert wrong.note == "it is zero: the term through kept is missing"


INSIDE = [  # a mistake inside one stage: its number in WRONG, and the term that it lacks
    ("mlp", 0, "the skip connection"),
    ("attention", 3, "the matrix product with params['K']"),
    ("attention", 4, "the matrix product with params['V']"),
    ("fork", 0, "the output ['skip']"),
    ("norm", 0, "the mean"),
]


@pytest.mark.parametrize(("name", "number", "term"), INSIDE)
def test_a_forgotten_term_inside_a_stage_is_named(name, number, term):
    mistake = WRONG[name][number][0]
    right = CHAIN[name]
    x = {"skip": X, "h": X} if name in ("norm", "attention") else X
    wrong = stages([right._replace(pullback=lambda *args: right.pullback(*args, **mistake))], x).wrong
    assert wrong
    assert all(finding.note.startswith(f"the term through {term}") for finding in wrong)
    assert all(finding.note.endswith(" is missing") for finding in wrong)


def test_a_forgotten_derivative_inside_a_stage_is_named():
    right, x = CHAIN["mlp"], X
    wrong = stages([right._replace(pullback=lambda *args: right.pullback(*args, slope=False))], x).wrong
    assert {finding.note for finding in wrong} == {"the derivative of tanh is missing"}
    assert len(wrong) == 3


def test_a_stage_may_read_the_same_value_twice_and_a_pytree():
    square = times("square", ("x", "x"))
    both = Stage("both", lambda _, x: {"a": x[0], "b": 2 * x[1]},
                 lambda _, x, y, y_bar: ((), (y_bar["a"], 2 * y_bar["b"])), of=("square", "x"))  # fmt: skip
    assert stages([square, both], X).ok


def test_tokens_may_be_read_by_several_stages():
    def embed_pullback(table, tokens, y, y_bar):
        return jnp.zeros_like(table).at[tokens].add(y_bar), None

    table = normal(7, 3)
    chain = [Stage(name, lambda p, x: p[x], embed_pullback, table, "x") for name in "ab"]
    assert stages([*chain, add("sum", ("a", "b"))], np.array([0, 2, 2, 5])).ok


def test_a_chain_may_use_one_stage_twice():
    double = Stage("double", lambda _, x: 2 * x, lambda _, x, y, g: ((), 2 * g))
    assert stages([double, double, double], X).ok


REFUSED = {
    "a cycle": ([dense("a", "c"), dense("b", "a"), dense("c", "b")], "ValueError: chain: the stages form a cycle: "),
    "itself": ([dense("a", "a")], "ValueError: chain: the stages form a cycle: 'a', which reads 'a'; write"),
    "an unknown name": ([dense("a"), dense("b", "c")], "reads of='c', which is no stage; write one of 'x', 'a'"),
    "an unknown name in a tuple": ([dense("a"), add("b", ("a", "y"))], "reads of='y', which is no stage"),
    "one name twice": ([dense("a"), dense("a"), dense("b", "a")], "two stages are named 'a'; write Stage('a 2', ...)"),
    "the name of the input": ([dense("x"), dense("b", "x")], "a stage is named 'x', which is the input"),
    "a number": ([dense("a"), dense("b", 0)], "TypeError: chain: stage 'b' reads of=int 0, expected the name of a"),
    "no pull-back": (
        [dense("a")._replace(pullback=None)],
        "TypeError: chain[0].pullback: expected a function, got None",
    ),
    "a number for a name": ([dense("a"), dense(1)], "TypeError: chain[1].name: expected a string, got int 1"),
    "no name": ([dense("a", ())], "TypeError: chain: stage 'a' reads of="),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_acyclic_graph_is_refused(case):
    chain, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError)) as raised:
        stages(chain, X)
    assert message in f"{type(raised.value).__name__}: {raised.value}"
    assert not jax.config.jax_enable_x64


def test_a_pullback_with_the_wrong_number_of_parts_is_a_finding():
    chain = [dense("a"), Stage("b", lambda _, x: x[0] + x[1], lambda _, x, y, g: ((), g), of=("x", "a"))]
    (wrong,) = stages(chain, X).wrong
    assert wrong.note.startswith("x_bar must have the structure")


def test_a_compiled_stage_may_read_several():
    chain = [dense("a"), stage(lambda _, x: x[0] + jnp.sin(x[1]), lambda _, x, y, g: ((), (g, g * np.cos(x[1]))))]
    assert stages([chain[0], chain[1]._replace(of=("x", "a"))], X).ok
