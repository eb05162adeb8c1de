"""Every public computation is lowered for GPUs and TPUs, and the tables of a graph are arguments of our programs.

There need be no such device: what XLA would be asked for is made from the same trace.
"""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnn
from experiments.programs import every_activation, every_loss, programs
from fnn.graph import plan

PLATFORMS = ("cuda", "tpu")
ESSENTIAL = ("forward: ", "backprop: ", "train.fit: ", "updates.momentum", "curvature.hvp", "per_example.clipped")
PROGRAMS = programs()
MODULES = ("curvature", "implicit", "per_example", "regression", "train", "updates")  # those that compute
NO_COMPUTATION = {  # public names of values, and of functions that check, write, or only call the computations
    "explain", "Explanation", "summary", "Activation", "Loss", "Rules", "RULES", "BFLOAT16", "BatchNorm", "Dense",
    "Stack", "LayerTrace", "Mask", "Dropout", "DropConnect", "checkpoint", "convert", "data", "exercises", "graph",
    "initializers", "parallel", "sklearn", "verify", *MODULES, "curvature.TANGENTS", "curvature.Estimate",
    "curvature.HessianTrace", "curvature.KroneckerFactors", "curvature.TangentRules", "implicit.NotConverged",
    "per_example.GradientMoments", "per_example.NoiseScale", "per_example.Norms", "train.Interrupted",
    "train.NonFinite", "train.Progress", "train.Record", "train.Run", "train.State", "updates.Path",
    "updates.Schedule", "updates.State",
}  # fmt: skip


def lower(function, *arguments, **options) -> str:
    """The program for every platform, as text."""
    return function.trace(*arguments, **options).lower(lowering_platforms=PLATFORMS).as_text()


class Lowered:
    """In place of a compiled function of fnn: lowers each of its calls before it runs, and counts them."""

    def __init__(self, function):
        self.function, self.calls, self.texts = function, 0, []

    def __call__(self, *arguments, **options):
        self.calls += 1
        traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((arguments, options)))
        if not traced:  # else what is around it is lowered
            self.texts.append(lower(self.function, *arguments, **options))
        return self.function(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.function, name)


def compiled_functions() -> dict[str, object]:
    """Every function of fnn, outside ``verify``, that is compiled where its module is loaded, by name."""
    found = {}
    for name, module in list(sys.modules.items()):
        if not name.startswith("fnn.") or name.startswith("fnn.verify"):
            continue
        for value in vars(module).values():
            if type(value) is type(jax.jit(abs)):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


@pytest.fixture
def lowered(monkeypatch):
    """Every compiled function of fnn, each lowered wherever it is called."""
    originals = compiled_functions()
    made = {name: Lowered(function) for name, function in originals.items()}
    by_identity = {id(function): made[name] for name, function in originals.items()}
    for module in [module for name, module in sys.modules.items() if name.startswith("fnn.")]:
        for attribute, value in list(vars(module).items()):
            if id(value) in by_identity:
                monkeypatch.setattr(module, attribute, by_identity[id(value)])
    return made


def essential_and_slow(names) -> list:
    return [name if name.startswith(ESSENTIAL) else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", essential_and_slow(name for name, program in PROGRAMS.items() if program.traced))
def test_it_is_lowered_for_gpus_and_tpus_without_a_large_constant(name):
    program = PROGRAMS[name]
    text = lower(jax.jit(program.call), *program.arguments)
    assert "func.func public @main" in text
    assert large_constants(text) == []


@pytest.mark.parametrize("name", essential_and_slow(name for name, program in PROGRAMS.items() if not program.traced))
def test_every_program_that_it_compiles_is_lowered_for_gpus_and_tpus(name, lowered):
    PROGRAMS[name]()
    assert any(function.texts for function in lowered.values()) or name in ("stack", "unstack")


@pytest.mark.slow
def test_no_compiled_function_is_left_out(lowered):
    jax.clear_caches()  # what an earlier test has traced would not be called again
    for program in programs().values():
        jax.eval_shape(program.call, *program.arguments) if program.traced else program()
    never_run = {"fnn.train.loop.first_step"}  # it is traced, to see whether an optimizer can train
    assert {name for name, function in lowered.items() if not function.calls} == never_run


def test_no_public_computation_is_left_out():
    modules = {"": fnn} | {f"{name}.": getattr(fnn, name) for name in MODULES}
    public = {
        f"{prefix}{name}"
        for prefix, module in modules.items()
        for name in getattr(module, "__all__", ["least_squares", "normal_equations"])
    }
    called = {name.split(":")[0] for name in PROGRAMS}
    assert public - called - NO_COMPUTATION == set()
    assert called - public == set()
    assert len(every_activation()) + len(every_loss()) > 20


LARGE = 1000  # entries: an array of data, and no number of a formula


def large_constants(text: str) -> list[int]:
    """The numbers of entries of the large constants in a program; those of one number that is repeated are none."""
    shapes = re.findall(r'stablehlo\.constant dense<(?:"0x|\[).*?: tensor<([\dx]+)x\w+>', text)
    sizes = [int(np.prod([int(n) for n in shape.split("x")])) for shape in shapes]
    return [size for size in sizes if size > LARGE]


def a_graph(arrows: int = 100_000) -> fnn.graph.GraphParams:
    graph = fnn.graph.Graph.random(
        jax.random.key(0), neurons=2000, arrows=arrows, inputs=20, outputs=3, generations=40, activation=fnn.Tanh()
    )
    return graph.init(jax.random.key(1))


@pytest.mark.slow
def test_the_tables_of_a_graph_are_arguments_of_our_programs(lowered):
    params = a_graph()
    x, y = np.ones((4, 20), np.float32), np.ones((4, 3), np.float32)
    optimizer = fnn.updates.sgd(0.1)
    fnn.forward(params, x)
    fnn.trace(params, x)
    fnn.backprop(params, x, y)
    fnn.curvature.hvp(params, x, y, params)
    fnn.per_example.norms(params, x, y)
    fnn.train.make_step(optimizer)(params, optimizer.init(params), x, y)
    fnn.train.predict(params, x)
    fnn.train.fit(params, (x, y), optimizer, epochs=1, batch_size=2, key=jax.random.key(2), progress=False)
    found = {name: large_constants(text) for name, function in lowered.items() for text in function.texts}
    assert {name: sizes for name, sizes in found.items() if sizes} == {}


@pytest.mark.slow
def test_in_a_users_program_they_are_arguments_where_they_are_given():
    params = a_graph()
    x, y, tables = np.ones((4, 20), np.float32), np.ones((4, 3), np.float32), fnn.graph.tables(params)

    def step(params, x, y, tables=None):
        return fnn.backprop(params, x, y, masks=tables)

    assert sum(large_constants(lower(jax.jit(step), params, x, y))) > 100_000
    assert large_constants(lower(jax.jit(step), params, x, y, tables)) == []


def test_the_tables_are_those_of_the_graph_of_the_rules_and_of_the_mask():
    params, other = a_graph(arrows=4000), a_graph(arrows=3990)
    x, y = np.ones((4, 20), np.float32), np.ones((4, 3), np.float32)
    mask = fnn.sample_masks(params, fnn.Dropout(0.5), 4, key=jax.random.key(0))
    right = fnn.backprop(params, x, y, masks=mask)
    found = jax.jit(lambda tables: fnn.backprop(params, x, y, masks=tables))(fnn.graph.tables(params, masks=mask))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(right)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"masks: expected the tables of Graph\(.* 4,000 arrows.* got .* 3,990 arrows"):
        fnn.backprop(params, x, y, masks=fnn.graph.tables(other))
    rules = fnn.RULES._replace(hidden_delta=lambda g, activation, z, a: g)
    with pytest.raises(ValueError, match="masks: expected the tables .* for these rules.*write fnn.graph.tables"):
        fnn.backprop(params, x, y, masks=fnn.graph.tables(params), rules=rules)


def test_a_graph_on_an_accelerator_has_fewer_larger_steps_and_the_same_gradient(monkeypatch):
    params = fnn.graph.Graph.random(
        jax.random.key(0), neurons=2000, arrows=30_000, inputs=20, outputs=3, generations=5, activation=fnn.Tanh()
    ).init(jax.random.key(1))
    x, y = np.ones((4, 20), np.float32), np.ones((4, 3), np.float32)
    on_cpu, steps = fnn.backprop(params, x, y), steps_of(params)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    plan.plan.cache_clear()
    try:
        elsewhere, fewer = jax.jit(fnn.backprop)(params, x, y), steps_of(params)
    finally:
        plan.plan.cache_clear()
    assert fewer < steps
    for ours, theirs in zip(jax.tree.leaves(elsewhere), jax.tree.leaves(on_cpu)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * jnp.abs(theirs).max())


def steps_of(params) -> int:
    return sum(leg.steps for leg in plan.plan(params.graph).layout.forward)
