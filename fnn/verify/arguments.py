"""The floating leaves of a function's arguments, and functions of only these."""

from collections.abc import Callable, Sequence

import jax

from fnn.verify.oracle import in_dtype, is_inexact


class Arguments:
    """The floating and complex leaves of the arguments, and functions of only these.

    fixed: the positions of arguments that are left as they are; dtype: of the leaves, or None for their own.
    """

    def __init__(self, args, fixed: Sequence[int], dtype: str | None):
        self.fixed = {i: args[i] for i in fixed if i < len(args)}
        kept = args if dtype is None else [in_dtype(arg, dtype) for arg in args]
        given = tuple(None if i in self.fixed else arg for i, arg in enumerate(kept))
        paths = jax.tree_util.tree_leaves_with_path(given)
        self.leaves, self.structure = jax.tree.flatten(given)
        self.places = [i for i, leaf in enumerate(self.leaves) if is_inexact(leaf)]
        self.names = [f"args[{paths[i][0][0].idx}]{jax.tree_util.keystr(paths[i][0][1:])}" for i in self.places]
        self.inputs = tuple(self.leaves[i] for i in self.places)
        if not self.inputs:
            raise TypeError("args: expected at least one floating array, to differentiate by it")

    def of(self, function: Callable) -> Callable:
        """``function`` as a function of the floating leaves."""

        def call(*floats):
            leaves = list(self.leaves)
            for i, value in zip(self.places, floats):
                leaves[i] = value
            args = list(jax.tree.unflatten(self.structure, leaves))
            for i, value in self.fixed.items():
                args[i] = value
            return function(*args)

        return call
