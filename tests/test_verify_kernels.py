"""verify.custom_vjp of kernels in their own precision, judged by the reference's rounding error."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from custom_cases import named, note, with_vjp
from experiments.flash_attention import arguments as attention_arguments
from experiments.flash_attention import flash_attention, reference
from experiments.flash_attention import main as flash_attention_program
from fnn.verify import custom_vjp
from fnn.verify.sweep import cases, where
from kernel_cases import (
    cross_entropy,
    cross_entropy_kernel,
    dot,
    layer_norm,
    layer_norm_kernel,
    product,
    product_kernel,
    random,
)
from problems import and_slow

PRECISIONS = ("bfloat16", "float16", "float32")


def factors(dtype):
    return random(64, 48, dtype=dtype), random(48, 64, dtype=dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_right_product_passes_in_its_own_precision_without_a_tolerance(dtype):
    report = custom_vjp(product_kernel(), *factors(dtype), oracle=product)
    assert report.ok, report
    assert report.dtype == dtype
    assert [finding.name for finding in report.findings] == ["value", "dx", "dw"]
    assert "in units of the reference's rounding error in " + dtype in note(report)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("first", and_slow([16], [0, 48]))
def test_one_and_a_half_percent_in_one_tile_fails_and_the_tile_is_named(dtype, first):
    """Of 16 x 16 entries, among 48 x 64."""
    kernel = product_kernel(lambda x, w, dx, dw: (dx, dw.at[8:24, first : first + 16].multiply(1.015)))
    (wrong,) = custom_vjp(kernel, *factors(dtype), oracle=product).wrong
    assert f"indices {first} to {first + 15} of axis 1, indices 8 to 23 of axis 0 of dw" in wrong.note


@pytest.mark.parametrize("seed", and_slow([0, 1], range(2, 60)))
def test_right_products_of_any_size_and_scale_are_not_accused(seed):
    draw = np.random.default_rng(seed)
    (n, k, m), dtype = draw.integers(1, 70, 3), PRECISIONS[seed % 3]
    scale = 10.0 ** draw.uniform(-2, 2)
    x, w = jnp.asarray(draw.normal(size=(n, k)) * scale, dtype), jnp.asarray(draw.normal(size=(k, m)), dtype)
    report = custom_vjp(product_kernel(), x, w, oracle=product)
    assert not report.wrong, report


def made(*, rows, batch=1, flip=False):
    return random(batch * rows, 12), random(12, 10)


FAULTS = {  # of a product's cotangents, and in which cases they show
    "only where batch > 1": lambda batch, rows, flip: batch > 1,
    "only where flip = True": lambda batch, rows, flip: flip,
    "only where rows is no multiple of 4": lambda batch, rows, flip: rows % 4 != 0,
    "only where rows = 9 and batch = 2": lambda batch, rows, flip: rows == 9 and batch == 2,
    "only where batch = 2 and flip = False": lambda batch, rows, flip: batch == 2 and not flip,
}


@pytest.mark.parametrize("condition", FAULTS)
def test_sizes_are_swept_and_the_report_says_where_it_is_wrong(condition):
    """The kernel is told its case by the maker of its arguments."""
    now = {}

    def make(**case):
        now.update(case)
        return made(**case)

    kernel = product_kernel(lambda x, w, dx, dw: (dx * (2 if FAULTS[condition](**now) else 1), dw))
    report = custom_vjp(kernel, make, oracle=product, sizes={"rows": 4, "batch": (1, 2), "flip": (False, True)})
    (wrong,) = report.wrong
    assert wrong.name == "dx"
    assert wrong.note.startswith((condition, condition.replace("batch > 1", "batch = 2")))
    assert "a constant factor 2" in wrong.note
    assert "20 cases in which every two values of rows, batch, flip occur together" in note(report)


def test_axes_are_named_by_the_sizes():
    kernel = product_kernel(lambda x, w, dx, dw: (dx.at[4:8].multiply(1.1), dw))
    (wrong,) = custom_vjp(kernel, made, oracle=product, sizes={"rows": (9,)}).wrong
    assert wrong.note == "rows 4 to 7 of dx: a constant factor 1.100"
    kernel = product_kernel(lambda x, w, dx, dw: (dx.at[8].set(0), dw))
    (wrong,) = custom_vjp(kernel, made, oracle=product, sizes={"rows": (9,)}).wrong
    assert wrong.note == "row 8 of dx: it is zero"


def test_a_wrong_value_and_what_is_not_finite_are_findings():
    f = jax.custom_vjp(lambda x: 1.01 * jnp.sin(x))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (jnp.where(x > 1, jnp.nan, jnp.cos(x)) * g,))
    report = custom_vjp(f, random(8, 9), oracle=jnp.sin)
    assert named(report) == {"value", "dx"}
    assert "are not finite" in report.wrong[1].note


def test_a_cotangent_that_is_never_returned_is_zero():
    f = jax.custom_vjp(lambda x, bias: x + bias)
    f.defvjp(lambda x, bias: (x + bias, None), lambda _, g: (g, None))
    (wrong,) = custom_vjp(f, random(8, 9), random(9), oracle=lambda x, bias: x + bias).wrong
    assert (wrong.name, wrong.note) == ("dbias", "it is zero")


def test_a_kernel_that_raises_or_changes_is_a_finding():
    def raising(x):
        raise RuntimeError("no such tile")

    (wrong,) = custom_vjp(raising, random(3), oracle=jnp.sin).wrong
    assert "it raises RuntimeError: no such tile" in wrong.note


def test_a_value_of_another_shape_is_a_finding():
    f = with_vjp(lambda x: x.sum(0), lambda a, g: (jnp.broadcast_to(g, a[0].shape),))
    (wrong,) = custom_vjp(f, random(3, 4), oracle=lambda x: x.sum(1)).wrong
    assert (wrong.name, wrong.note) == ("value", "of shape (4,), expected (3,)")


def test_at_a_kink_every_value_between_the_sides_is_right():
    x = jnp.asarray([0.0, -1, 2, 0], jnp.float32)
    for slope in (0, 0.5, 1, 1.5):
        f = with_vjp(lambda x: jnp.maximum(x, 0), lambda a, g, s=slope: (jnp.where(a[0] == 0, s, a[0] > 0) * g,))
        with jax.numpy_dtype_promotion("standard"):
            assert custom_vjp(f, x, oracle=jax.nn.relu).ok == (slope <= 1)


def test_what_overflows_in_the_reference_too_is_not_compared():
    f = with_vjp(jnp.exp, lambda a, g: (g * jnp.exp(a[0]),))
    assert custom_vjp(f, jnp.asarray([1.0, 12.0], jnp.float16), oracle=jnp.exp).ok


def test_complex_kernels_are_judged_too():
    z = jnp.asarray([1 + 2j, 3 - 1j], jnp.complex64)
    assert custom_vjp(with_vjp(jnp.square, lambda a, g: (2 * a[0] * g,)), z, oracle=jnp.square).ok
    assert not custom_vjp(with_vjp(jnp.square, lambda a, g: (2 * a[0].conj() * g,)), z, oracle=jnp.square).ok


def test_a_kernel_that_computes_in_a_coarser_dtype_than_its_arguments_is_judged_in_that():
    def coarse(a, b):
        return dot(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))

    def judged(factor):
        f = with_vjp(coarse, lambda a, g: (coarse(g, a[1].T), factor * coarse(a[0].T, g)))
        return custom_vjp(f, *factors("float32"), oracle=product)

    assert judged(1).ok
    assert judged(1).dtype == "bfloat16"
    assert named(judged(1.02)) == {"db"}


# -- kernels in Pallas ------------------------------------------------------------------------------------------


def norm_arguments(dtype="float32", *, rows=9, d=12):
    return random(rows, d, dtype=dtype), 1 + random(d, dtype=dtype)


@pytest.mark.parametrize("dtype", and_slow(["float32"], PRECISIONS))
def test_a_layer_norm_passes_at_sizes_around_its_tile(dtype):
    report = custom_vjp(layer_norm_kernel(), partial(norm_arguments, dtype), oracle=layer_norm, sizes={"rows": 8})
    assert report.ok, report


NORM = {"mean": {"dx"}, "accumulator": {"dgain"}, "edge": {"dgain"}}


@pytest.mark.parametrize("fault", and_slow(["accumulator"], NORM))
def test_its_faults_are_named(fault):
    report = custom_vjp(layer_norm_kernel(fault), norm_arguments, oracle=layer_norm, sizes={"rows": (8, 17)})
    assert named(report) == NORM[fault]
    assert ("only where rows" in report.wrong[0].note) == (fault == "edge")


def entropy_arguments(dtype="float32", *, rows=9, classes=5, large=False):
    labels = jnp.asarray(np.arange(rows) % classes, jnp.int32)
    return random(rows, classes, dtype=dtype) * (200 if large else 1), labels


@pytest.mark.parametrize("fault", and_slow(["", "overflow"], ["cotangent"]))
def test_a_softmax_cross_entropy_passes_and_its_faults_are_named(fault):
    sizes = {"rows": (8, 17), "large": (False, True)}
    report = custom_vjp(cross_entropy_kernel(fault), entropy_arguments, oracle=cross_entropy, sizes=sizes)
    assert named(report) == {"": set(), "overflow": {"value", "dz"}, "cotangent": {"dz"}}[fault]
    assert ("only where large = True" in str(report)) == (fault == "overflow")


FLASH = {  # the fault of an attention, sizes, what is wrong, and what is said
    "head-size": ({"d": (8, 32), "batch": (1, 2)}, {"dq"}, "only where d = 32 and batch = 2: a constant factor 0.500"),
    "not-causal": ({"causal": (False, True)}, {"dq", "dbias"}, "only where causal = False"),
    "bias": ({"rows": (17,)}, {"dbias"}, "it is zero"),
    "nan": ({"masked": (False, True), "rows": (33,)}, {"value", "dq", "dk", "dv", "dbias"}, "only where masked = True"),
    "accumulator": ({"rows": (17,)}, {"dk"}, ""),
    "tile": ({"rows": (33,), "heads": (2,)}, {"dk"}, "rows 16 to 31, head 1 of dk: a constant factor 1.015"),
}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_flash_attention_passes_with_masks_causal_or_not_and_at_sizes_around_its_tile(dtype):
    sizes = {"rows": 16, "d": (8, 32), "batch": (1, 2), "causal": (False, True), "masked": (False, True)}
    report = custom_vjp(flash_attention(), partial(attention_arguments, dtype), oracle=reference, sizes=sizes)
    assert report.ok, report


@pytest.mark.parametrize("fault", and_slow(["tile"], FLASH))
def test_its_faults_are_those_that_users_reported_and_are_named(fault):
    sizes, wrong, says = FLASH[fault]
    report = custom_vjp(flash_attention(fault), attention_arguments, oracle=reference, sizes=sizes)
    assert named(report) == wrong, report
    assert says.split(": ")[0] in report.wrong[0].note
    assert says.split(": ")[-1] in report.wrong[0].note


# -- sizes ------------------------------------------------------------------------------------------------------


def test_every_two_values_occur_together():
    sizes = {"rows": 128, "d": (64, 256), "batch": (1, 2), "causal": (False, True)}
    found = cases(sizes)
    assert len(found) < 16 < 5 * 2 * 2 * 2
    assert {case["rows"] for case in found} == {1, 127, 128, 129, 257}
    for first, second in (("rows", "d"), ("d", "batch"), ("batch", "causal"), ("rows", "causal")):
        pairs = {(case[first], case[second]) for case in found}
        assert len(pairs) == (10 if first == "rows" else 4)


def test_a_condition_holds_in_the_failing_cases_and_in_no_other():
    every = cases({"rows": (8, 9), "batch": (1, 2)})
    assert where(every, every, {}) == where(every, [], {}) == ""
    assert where(every, [case for case in every if case["rows"] == 9], {"rows": 8}) == "only where rows = 9"


@pytest.mark.parametrize(("arguments", "options", "message"), [
    ((made,), {"sizes": {"rows": 3}}, "sizes: they go with oracle="),
    ((made,), {"sizes": {"rows": 3}, "oracle": product, "tolerance": 1e-3}, "sizes: they go with oracle="),
    (factors("float32"), {"sizes": {"rows": 3}, "oracle": product}, "args: with sizes= expected one function"),
    ((made,), {"sizes": 3, "oracle": product}, "sizes: expected a dict, got int 3"),
    ((made,), {"sizes": {"rows": 0}, "oracle": product}, r"sizes\['rows'\]: expected a tile"),
    ((made,), {"sizes": {"rows": "128"}, "oracle": product}, r"sizes\['rows'\]: expected a tile"),
])  # fmt: skip
def test_bad_sizes_are_refused_by_name(arguments, options, message):
    with pytest.raises(TypeError, match=message):
        custom_vjp(product_kernel(), *arguments, **options)


@pytest.mark.slow
@pytest.mark.project
def test_the_example_ends_with_1_if_a_fault_is_chosen(capsys):
    with pytest.raises(SystemExit) as ended:
        flash_attention_program(["--fault", "bias"])
    assert ended.value.code == 1
    assert "dbias" in capsys.readouterr().out
