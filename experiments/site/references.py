"""Names in docstrings and signatures, found where the site describes the same object."""

import importlib
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

ELSEWHERE = [  # of other packages, whose documentation is not fetched, and of fnn's signatures, which explain them
    "collections.abc.Callable",
    "collections.abc.Hashable",
    "collections.abc.Iterable",
    "collections.abc.Iterator",
    "collections.abc.Mapping",
    "collections.abc.Sequence",
    "fnn.checks.network.Ports",
    "fnn.graph.given.Given",
    "fnn.kinds.AnyParams",
    "fnn.verify.equations.Case",
    "jax._src.mesh.Mesh",
    "jax.jaxlib._jax.Array",
    "jaxlib._jax.Device",
    "numpy.bool",
    "numpy.ndarray",
    "optax._src.base.GradientTransformation",
    "os.PathLike",
    "pathlib.Path",
]


def resolve(app, env, node, contnode) -> nodes.Node | None:
    """A link to the only described object that the name can mean: the same one, or, of a bare name, one called so."""
    if node.get("refdomain") != "py":
        return None
    name, objects = node["reftarget"], env.domains.python_domain.objects
    if name.startswith("fnn."):
        wanted = imported(name)
        candidates = [other for other in objects if wanted is not None and imported(other) is wanted]
    else:
        candidates = [other for other in objects if other.endswith(f".{name}")]
    places = {(objects[other].docname, objects[other].node_id) for other in candidates}
    if len(places) != 1:
        return None
    docname, anchor = places.pop()
    return make_refnode(app.builder, node["refdoc"], docname, anchor, contnode, name)


def imported(name: str) -> Any:
    """The object of that full name, or None."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):  # a method, say
        return None


def source_of(app, module: str, attribute: str) -> str | None:
    """A name for a type of Python's own has its source where the name is given."""
    value = imported(f"{module}.{attribute}")
    return module if getattr(value, "__module__", None) == "builtins" else None


class Folders(SphinxPostTransform):
    """A Markdown link to a folder or a module of the package leads to its page, and nowhere if it has none."""

    default_priority = 8  # before MyST looks for a page of that name

    def run(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(pending_xref)):
            folder = re.fullmatch(r"fnn/(\w+)", node["reftarget"]) if node["reftype"] == "myst" else None
            if folder is None:
                continue
            page = f"experiments/site/api/{folder[1]}"
            if page in self.env.found_docs:
                node["refdomain"], node["reftarget"], node["reftargetid"] = "doc", page, None
            else:
                node.replace_self(node.children)


def setup(app) -> None:
    app.add_post_transform(Folders)
    app.connect("viewcode-follow-imported", source_of)
    app.connect("missing-reference", resolve)
