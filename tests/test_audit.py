"""The audit of derivatives that others ship: what the walk finds, what a verdict says, and the page that is kept."""

from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import table
from experiments.audit import __main__ as program
from experiments.audit import findings, jax_cases, judge, package_cases, render, walk
from experiments.audit.cases import Case, at

pytestmark = pytest.mark.project

TOY = """
import functools
import jax

@jax.custom_jvp
def square(x):
    return x * x

square.defjvp(lambda x, t: (square(*x), 2 * x[0] * t[0]))

@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scaled(x, c):
    return c * x

scaled.defvjp(lambda x, c: (c * x, None), lambda c, _, g: (c * g,))
scaled = jax.jit(scaled, static_argnums=1)
again = functools.partial(square)

class Layer:
    @staticmethod
    @jax.custom_jvp
    def cube(x):
        return x**3

def plain(x):
    return x
"""


@jax.custom_jvp
def wrong(x):
    return x * x


wrong.defjvp(lambda x, t: (x[0] * x[0], x[0] * t[0]))  # half


@jax.custom_jvp
def not_finite(x):
    return x * x


not_finite.defjvp(lambda x, t: (x[0] * x[0], jnp.nan * t[0]))


def written(folder, monkeypatch, name: str, **files: str) -> None:
    """A package of these modules that can be imported."""
    (folder / name).mkdir()
    for module, text in files.items():
        (folder / name / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)


def skip_if_another_version(package: str) -> None:
    """Of packages whose names and mistakes are those of the record."""
    if version(package) != render.kept()["figures"]["versions"][package]:
        pytest.skip(f"the record was made with another version of {package}")


def test_the_walk_finds_each_object_once_under_decorators_and_in_classes(tmp_path, monkeypatch):
    other = "from toy_audit.rules import square\nfrom jax.nn import relu\n"
    written(tmp_path, monkeypatch, "toy_audit", __init__="", rules=TOY, other=other)
    found = walk.derivatives("toy_audit")
    assert [str(one) for one in found] == [
        "toy_audit.rules.Layer.cube",
        "toy_audit.rules.scaled",
        "toy_audit.rules.square",
    ]
    assert [one.kind for one in found] == ["custom_jvp", "custom_vjp", "custom_jvp"]


def test_the_walk_skips_modules_that_fail_on_import(tmp_path, monkeypatch):
    written(
        tmp_path,
        monkeypatch,
        "toy_broken",
        __init__="",
        rules=TOY,
        needs="import not_there",
        quits="raise SystemExit(1)",
    )
    assert len(walk.derivatives("toy_broken")) == 3
    assert walk.derivatives("not_there_at_all") == []


@pytest.mark.parametrize(
    ("f", "deliberate", "verdict"),
    [
        (lambda x: x * x, "", judge.RIGHT),
        (wrong, "", judge.WRONG),
        (wrong, "half on purpose", judge.DELIBERATE),
        (not_finite, "", judge.NOT_FINITE),
        (lambda x: jnp.sin(0 * x), "", judge.ZERO),
        (lambda x: x.undefined, "", judge.NONE),
    ],
)
def test_a_verdict_says_what_the_checker_found(f, deliberate, verdict):
    case = Case("f", "", f, at(ordinary=(0.5, 2.0)), deliberate, single=False)
    assert [one.verdict for one in judge.judged(case)] == [verdict]


def test_what_is_not_finite_in_value_and_derivative_is_undefined_and_not_wrong():
    case = Case("logaddexp", "", jnp.logaddexp, {"both inf": (np.array([-np.inf]), np.array([-np.inf]))}, single=False)
    assert [one.verdict for one in judge.judged(case)] == [judge.UNDEFINED]


def test_a_package_that_is_not_installed_is_skipped_and_said():
    made, why = program.prepared("not_there_at_all", list)
    assert (made, why) == ([], "not installed")
    assert render.absent({"absent": {"thing": why}}) == ["Skipped: thing (not installed)."]


def test_an_unknown_package_is_refused_by_name():
    with pytest.raises(SystemExit, match="no package opptax; there are jax, optax"):
        program.chosen(["opptax"])


def test_every_derivative_that_a_case_of_jax_names_is_found_by_the_walk():
    skip_if_another_version("jax")
    found = {
        str(one) for module in ("jax._src.nn", "jax._src.scipy", "jax._src.numpy") for one in walk.derivatives(module)
    }
    named = {case.rule for case in jax_cases.cases() if case.rule.startswith(("jax._src.nn", "jax._src.scipy"))}
    assert named <= found


@pytest.mark.parametrize("case", jax_cases.cases(), ids=lambda case: case.target)
def test_the_first_arguments_for_jax_run(case):
    point = next(iter(case.points))
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        assert jax.tree.leaves(case.f(*map(jnp.asarray, case.points[point])))


def test_the_page_is_what_the_kept_record_makes():
    assert render.PATH.read_text() == render.document(render.kept()), "write python -m experiments.audit --page"


def test_the_record_has_enough_derivatives_and_packages_and_every_finding():
    figures = render.kept()["figures"]
    derivatives, packages = render.counted(figures)
    assert derivatives >= 60
    assert packages >= 10
    assert {found.package for found in findings.FINDINGS} <= set(figures["versions"])
    assert {row["package"] for row in figures["verdicts"]} <= {"jax", *package_cases.CASES}
    assert len(render.shown(figures)) == len(findings.FINDINGS), "a finding is not confirmed any more: remove it"


def test_the_record_is_kept_beside_those_of_the_other_experiments():
    assert render.RECORD.parent == table.GALLERY


@pytest.mark.parametrize(
    "found",
    [found for found in findings.FINDINGS if found.package in ("jax", "optax")],
    ids=lambda found: found.gives.__name__,
)
def test_a_finding_in_what_is_installed_here_is_confirmed_by_its_second_oracle(found):
    pytest.importorskip("mpmath")
    skip_if_another_version(found.package)
    given, right, differs = found.values()
    assert differs, f"given {given}, right {right}: it is repaired in this version"
    assert "nan" not in right
