"""Every first-order change of a function's source, made by machine: nobody chooses the mistakes.

``changes(function)`` yields one :class:`Change` for each way to alter one node of the function's syntax tree: another
operator, constant, name, attribute, function, axis, comparison or branch; a term, factor, call, transpose, keyword or
statement that is missing; a sign. The changed function is compiled in a copy of its module's globals, so that nothing
leaks, and has the name and arguments of the one that it stands for.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from types import FunctionType
from typing import NamedTuple


class Change(NamedTuple):
    """What was changed where, the kind of the change, and the changed function.

    where: the function's module and name; before, after: the text of the statement.
    """

    where: str
    kind: str
    before: str
    after: str
    function: Callable

    @property
    def name(self) -> str:
        return f"{self.where}: {self.before} -> {self.after}"


def changes(function: Callable, helpers: tuple[str, ...] = (), of: str = "", owner: type | None = None):
    """All first-order changes of the function, or of its helper ``of``, a function of the same module.

    helpers: the names of those that it calls, directly or not; the other users of them see no change. owner: the class
    of a method that calls ``super()``.
    """
    changed_one = function if not of else function.__globals__[of]
    where = f"{function.__module__.removeprefix('fnn.')}.{function.__qualname__}" + (f" < {of}" if of else "")
    tree = parsed(changed_one)
    seen = {ast.unparse(tree)}
    for node, kind, new in nodes_and_replacements(tree):
        changed = ast.fix_missing_locations(substitute(tree, node, new))
        if (text := ast.unparse(changed)) in seen:
            continue
        seen.add(text)
        before, after = _difference(tree, changed)
        yield Change(where, kind, before, after, _compiled(changed, function, helpers, of, owner))


def parsed(function: Callable) -> ast.FunctionDef:
    """The function's syntax tree without decorators, docstring and annotations."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    if isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant):
        tree.body = tree.body[1:]
    return tree


def _difference(tree: ast.FunctionDef, changed: ast.FunctionDef) -> tuple[str, str]:
    """The lines that differ, which are those of one statement."""
    before, after = (ast.unparse(of).splitlines()[1:] for of in (tree, changed))
    while before and after and before[0] == after[0]:
        before, after = before[1:], after[1:]
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    return tuple(" ".join(line.strip() for line in of) or "(nothing)" for of in (before, after))  # type: ignore


def _compiled(tree: ast.FunctionDef, function: Callable, helpers, of: str, owner: type | None) -> Callable:
    """The function, with the changed tree in its place or in that of a helper, in globals of its own."""
    namespace = dict(function.__globals__)
    names = [*helpers, *([] if of else [function.__name__])]
    for name in helpers:
        old = function.__globals__[name]
        namespace[name] = FunctionType(old.__code__, namespace, name, old.__defaults__, old.__closure__)
    make = ast.parse("def make(__class__): return 0").body[0]
    assert isinstance(make, ast.FunctionDef)
    plain = substitute(tree, None, None)
    for arg in [*plain.args.args, *plain.args.kwonlyargs]:
        arg.annotation = None
    plain.returns = None
    make.body = [plain, ast.parse(f"return {tree.name}").body[0]]  # type: ignore
    module = ast.fix_missing_locations(ast.Module([make], []))
    exec(compile(module, "<changed>", "exec"), namespace)
    new = namespace.pop("make")(owner)
    if not of:
        return new
    assert of in names
    namespace[of] = new
    return FunctionType(function.__code__, namespace, function.__name__, function.__defaults__, function.__closure__)


def substitute(tree, old, new):
    """A copy of the tree with one node, found by identity, replaced."""
    if old is not None and tree is old:
        return new
    if isinstance(tree, list):
        return [substitute(entry, old, new) for entry in tree]
    if isinstance(tree, ast.AST):
        return type(tree)(**{name: substitute(value, old, new) for name, value in ast.iter_fields(tree)})
    return tree


# -- what replaces a node --------------------------------------------------------------------------------------

OPERATORS: dict = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add, ast.Mult),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult, ast.Sub),
    ast.MatMult: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
}
COMPARISONS: dict = {
    ast.Lt: (ast.LtE, ast.GtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt, ast.GtE),
    ast.Gt: (ast.GtE, ast.LtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.Is: (ast.IsNot,),
}
FUNCTIONS = {
    "sum": "mean", "mean": "sum", "tanh": "sinh", "exp": "expm1", "sqrt": "exp", "abs": "sign", "sign": "abs",
    "logistic": "tanh", "erfc": "erf", "log": "log1p", "max": "min", "zeros_like": "ones_like",
    "ones_like": "zeros_like", "clip": "where", "derivative": "second_derivative",
}  # fmt: skip
ATTRIBUTES = {  # of the same object
    "gamma": ("beta",), "beta": ("gamma",), "mu": ("sigma",), "sigma": ("mu",), "m": ("b",), "x_min": ("x_max",),
    "x_max": ("x_min",),
}  # fmt: skip
NUMBERS = (0, 1, 2, 0.5)
AXES = (0, 1, -1, None)


def nodes_and_replacements(tree: ast.FunctionDef) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """(node, kind of change, new node) for every first-order change of the function's body."""
    types = _types(tree)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    arguments = {arg.arg for arg in tree.args.args}
    for statement in tree.body:
        for node in ast.walk(statement):
            yield from ((node, *change) for change in _replacements(node, parents, types, arguments))


def _types(tree: ast.FunctionDef) -> dict[str, tuple[str, int]]:
    """Every argument's and local's type, "Array" where none is written, and the line from which it exists."""
    types = {}
    for arg in tree.args.args:
        written = "Array" if arg.annotation is None else ast.unparse(arg.annotation).removesuffix(" | None")
        types[arg.arg] = (arg.arg if arg.arg in ("self", "activation") else written, 0)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in types:
            types[node.id] = ("Array", node.lineno + 1)
    return types


def _replacements(node, parents, types, arguments) -> Iterator[tuple[str, ast.AST]]:
    parent = parents[node]
    match node:
        case ast.BinOp(left, op, right):
            yield from (("operator", ast.BinOp(left, other(), right)) for other in OPERATORS[type(op)])
            yield from (("term or factor missing", side) for side in (left, right))
            if isinstance(op, (ast.Sub, ast.Div, ast.MatMult, ast.Pow)):
                yield "operands swapped", ast.BinOp(right, op, left)
            if isinstance(op, ast.MatMult):
                yield "transpose", ast.BinOp(ast.Attribute(left, "T", ast.Load()), op, right)
                yield "transpose", ast.BinOp(left, op, ast.Attribute(right, "T", ast.Load()))
        case ast.UnaryOp(ast.USub(), ast.Constant(1)) if isinstance(parent, ast.keyword):
            yield from (("axis", ast.Constant(axis)) for axis in AXES if axis != -1)
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield "sign or not", operand
        case ast.Constant(value) if not isinstance(parents[parent], ast.keyword):
            yield from (
                (
                    "axis" if isinstance(parent, ast.keyword) and parent.arg == "axis" else "constant",
                    ast.Constant(other),
                )
                for other in _constants(value, parent)
            )
        case ast.Name(name, ast.Load()) if name in types:
            known, _ = types[name]
            for other, (kind, since) in types.items():
                if other != name and kind == known and since <= node.lineno and kind != "self":
                    yield "name", ast.Name(other, ast.Load())
        case ast.Attribute(value, "T"):
            yield "transpose", value
        case ast.Attribute(value, name, ctx) if name in ATTRIBUTES and ast.unparse(value) != "activation":
            if name != "beta" or ast.unparse(value) != "self":  # a sigmoid has no gamma
                yield from (("attribute", ast.Attribute(value, other, ctx)) for other in ATTRIBUTES[name])
        case ast.Compare(left, [op], comparators):
            yield from (("comparison", ast.Compare(left, [other()], comparators)) for other in COMPARISONS[type(op)])
        case ast.IfExp(test, body, orelse):
            yield from (("branch", branch) for branch in (body, orelse, ast.IfExp(test, orelse, body)))
        case ast.If(test, body, orelse):
            yield from (("branch", ast.If(ast.Constant(value), body, orelse)) for value in (True, False))
            yield "branch", ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Call():
            yield from _calls(node)
        case ast.Assign([ast.Name(name)], _) if name in arguments:
            yield "statement missing", ast.Pass()
        case ast.AugAssign(target, op, value):
            yield "statement missing", ast.Pass()
            yield from (("operator", ast.AugAssign(target, other(), value)) for other in OPERATORS[type(op)])
        case ast.Tuple(elts, ast.Load()) if isinstance(parent, ast.Return):
            for i in range(len(elts) - 1):
                yield "results swapped", ast.Tuple([*elts[:i], elts[i + 1], elts[i], *elts[i + 2 :]], ast.Load())
    if _is_term(node, parent, types):
        yield "sign", ast.UnaryOp(ast.USub(), node)


def _constants(value, parent) -> Iterator:
    if isinstance(value, bool):
        yield not value
    elif value in ("full", "fixed"):
        yield "fixed" if value == "full" else "full"
    elif isinstance(parent, ast.keyword) and parent.arg == "axis":
        yield from (other for other in AXES if other != value)
    elif isinstance(parent, ast.Subscript):
        yield 1 - value
    elif isinstance(value, (int, float)):
        yield from (other for other in dict.fromkeys((*NUMBERS, value + 1, value * 2)) if other != value)


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    func, args, keywords = node.func, node.args, node.keywords
    for arg in args:
        if not isinstance(arg, (ast.Starred, ast.Lambda, ast.GeneratorExp)):
            yield "call missing", arg
    for i in range(len(args) - 1):
        yield "arguments swapped", ast.Call(func, [*args[:i], args[i + 1], args[i], *args[i + 2 :]], keywords)
    for i in range(len(keywords)):
        yield "keyword missing", ast.Call(func, args, keywords[:i] + keywords[i + 1 :])
    if isinstance(func, ast.Attribute) and func.attr in FUNCTIONS and func.attr != "clip":
        yield "function", ast.Call(ast.Attribute(func.value, FUNCTIONS[func.attr], ast.Load()), args, keywords)


def _is_term(node, parent, types) -> bool:
    """Whether the node is a term of a sum, an argument, or a result: where a sign is another mistake than elsewhere."""
    if (
        not isinstance(node, (ast.BinOp, ast.Call, ast.Name, ast.Attribute))
        or isinstance(node, ast.Name)
        and (not isinstance(node.ctx, ast.Load) or types.get(node.id, ("",))[0] != "Array")
    ):
        return False
    match parent:
        case ast.BinOp(_, ast.Add() | ast.Sub()) | ast.Return() | ast.Assign() | ast.AugAssign():
            return node is not getattr(parent, "target", None)
        case ast.Call(func):
            return node is not func and not isinstance(func, ast.Name | ast.Attribute) or node in parent.args
        case ast.Tuple():
            return True
    return False


# -- activations and losses with one method changed ------------------------------------------------------------


def variant(instance, **methods):
    """An activation or a loss with other methods, equal to the right one.

    All with the same changed methods are of one class and equal, so that autodiff's program, which depends on ``value``
    alone, is compiled once: what is written by hand must run uncompiled, as it does in ``verify``.
    """
    made = object.__new__(_with_methods(type(instance), tuple(methods)))
    for name, value in {**vars(instance), "changed": methods}.items():
        object.__setattr__(made, name, value)
    return made


@cache
def _with_methods(cls: type, names: tuple[str, ...]) -> type:
    own = [field.name for field in fields(cls)]

    def equal(self, other):
        return isinstance(other, cls) and all(getattr(self, n) == getattr(other, n) for n in own)

    def method(name):
        return lambda self, *args: self.changed[name](self, *args)

    methods = {name: method(name) for name in names}
    return type(cls.__name__, (cls,), {**methods, "__eq__": equal, "__hash__": cls.__hash__})
