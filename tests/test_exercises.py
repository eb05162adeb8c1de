"""Exercises: an answer is graded by the report, a blank is no mistake, and a puzzle has one wrong equation."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from fnn.exercises import MISTAKES, grade, puzzle
from fnn.exercises.forms import RIGHT

PARAMS = fnn.init(jax.random.key(0), (4, 5, 3), activation=fnn.Tanh(), output=fnn.Sigmoid())


def hidden_delta(g, activation, z, a):
    return g * activation.derivative(z, a)


@pytest.mark.slow
@pytest.mark.parametrize("form", RIGHT, ids=lambda form: form.text)
def test_every_right_form_is_right(form):
    fnn.verify.network(PARAMS, rules=form.rules).check()


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_found_in_its_own_rule_and_nowhere_else(name):
    report = fnn.verify.network(PARAMS, rules=MISTAKES[name].rules)
    assert {finding.kind for finding in report.wrong} == {MISTAKES[name].rule}


def test_no_form_stands_twice():
    texts = [form.text for form in (*RIGHT, *MISTAKES.values())]
    assert len(set(texts)) == len(texts)


def test_a_right_rule_is_right_and_its_report_is_folded():
    graded = grade(hidden_delta)
    assert graded.ok is True
    assert str(graded) == "✓ hidden_delta: all 12 equations agree"
    assert "<details><summary>Report</summary><table>" in graded._repr_html_()


def test_a_wrong_rule_is_named_with_the_report():
    def hidden_delta(g, activation, z, a):
        return g

    graded = grade(hidden_delta)
    assert graded.ok is False
    assert str(graded).startswith("✗ hidden_delta: 2 of 12 equations are wrong")
    assert "sigma'(z[1]) is missing" in str(graded)
    assert graded._repr_html_().count("#f8dada") == 1 + 2  # the verdict, and two rows


def blank(*args):
    pass


def ellipsis(*args):
    return ...


def half_filled(*args):
    return jnp.ones(3), ...


@pytest.mark.parametrize("answer", [blank, ellipsis, half_filled])
def test_a_blank_is_not_filled_in_yet_and_no_mistake(answer):
    graded = grade(
        answer, lambda f: fnn.verify.network(PARAMS, rules=fnn.RULES._replace(norm_pullback=f, hidden_delta=f))
    )
    assert graded.ok is None
    assert str(graded) == f"{answer.__name__}: not filled in yet"
    assert "<table>" not in graded._repr_html_()


@pytest.mark.parametrize("arguments", ["delta, a_in", "delta, a_in, mask", "delta, a_in, mask=None"])
def test_a_mask_may_be_left_out(arguments):
    scope = {}
    product = "delta.T @ a_in" if "mask" not in arguments else "fnn.RULES.weight_gradient(delta, a_in, mask)"
    exec(f"def weight_gradient({arguments}): return {product}", {"fnn": fnn}, scope)
    assert grade(scope["weight_gradient"]).ok is True


def test_an_answer_that_raises_is_graded_with_what_it_raises():
    def gradient(w):
        return w.nothing

    graded = grade(gradient, lambda f: fnn.verify.gradient(f, jnp.sum, jnp.ones(3)))
    assert graded.ok is False
    assert "has no attribute" in str(graded)


def test_a_check_of_ones_own_grades_any_function():
    def gradient(w):
        return 2 * w

    assert grade(gradient, lambda f: fnn.verify.gradient(f, lambda w: (w * w).sum(), jnp.ones(3))).ok is True
    assert grade(gradient, lambda f: fnn.verify.gradient(f, lambda w: (w * w * w).sum(), jnp.ones(3))).ok is False


def test_what_is_no_answer_or_no_check_is_refused():
    with pytest.raises(TypeError, match=r"answer: expected a function, got .*; write grade\(hidden_delta\)"):
        grade(3)
    with pytest.raises(TypeError, match="check: expected a function, got .*; write check="):
        grade(hidden_delta, 3)
    with pytest.raises(TypeError, match="check: expected a function that returns a report, it returned"):
        grade(hidden_delta, lambda f: True)
    with pytest.raises(ValueError, match="answer: expected a function with the name of a rule .*, got 'blank'; write"):
        grade(blank)


def test_a_puzzle_has_one_wrong_form_among_right_ones_and_its_seed_decides_which():
    drawn = [puzzle(seed) for seed in range(1, 200)]
    assert drawn[0] == puzzle(1)
    assert all(a.forms != b.forms for a, b in pairwise(drawn))
    places, mistakes = [], set()
    for one in drawn:
        (wrong,) = (i for i, form in enumerate(one.forms, 1) if form in MISTAKES.values())
        assert len(set(one.forms)) == len(one.forms) == 10
        assert all(form in RIGHT for i, form in enumerate(one.forms, 1) if i != wrong)
        places.append(wrong)
        mistakes.add(one.forms[wrong - 1])
    assert np.bincount(places, minlength=11)[1:].min() > 5
    assert len(mistakes) == len(MISTAKES)


def test_a_puzzle_is_graded_by_the_report_on_the_chosen_form():
    drawn = puzzle(3, size=4)
    grades = [drawn.grade(number) for number in (1, 2, 3, 4)]
    assert [graded.ok for graded in grades].count(True) == 1
    for graded in grades:
        assert graded.ok is not graded.report.ok
        assert ("look for another" in str(graded)) is graded.report.ok
    for unfilled in (..., None):
        assert str(drawn.grade(unfilled)) == "puzzle 3: not filled in yet"


def test_a_puzzle_shows_numbers_and_code():
    lines = str(puzzle(1)).splitlines()
    assert lines[0] == "Puzzle 1: one of these is wrong."
    assert lines[1].startswith("(tanh in the hidden layers, a sigmoid at the output; ")
    assert [line[:3] for line in lines[2::2]] == [f"{number:2}." for number in range(1, 11)]
    assert lines[2].startswith(" 1. def ")
    assert lines[3].startswith("        return ")


@pytest.mark.parametrize("arguments", [{"seed": 0}, {"seed": 1, "size": 31}, {"seed": 1, "size": 0}])
def test_a_puzzle_that_cannot_be_is_refused(arguments):
    with pytest.raises(ValueError, match="expected at least 1"):
        puzzle(**arguments)


def test_a_number_that_the_puzzle_does_not_have_is_refused():
    with pytest.raises(ValueError, match="number: expected at least 1 and at most the 10 forms, got 11"):
        puzzle(1).grade(11)
