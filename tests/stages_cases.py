"""A transformer block as a chain of stages, and the mistakes that people make in its pull-backs.

x -> {skip, h} -> layer norm of h -> attention -> skip + h -> residual MLP. The functions are compiled once; their
pull-backs are written in NumPy, so that a mistake in one of them compiles nothing.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify import Stage, stages

EXAMPLES, WIDTH, EPS = 5, 4, 1e-5
random = np.random.default_rng(7)


def normal(*shape):
    return random.normal(size=shape)


def fork(_, x):
    return {"skip": x, "h": x}


def fork_pullback(_, x, y, y_bar, skip=1, h=1):
    return (), skip * y_bar["skip"] + h * y_bar["h"]


def standardised(h):
    s = (h.var(-1, keepdims=True) + EPS) ** 0.5
    return (h - h.mean(-1, keepdims=True)) / s, s


def norm(p, x):
    return {"skip": x["skip"], "h": p["gamma"] * standardised(x["h"])[0] + p["beta"]}


def norm_pullback(p, x, y, y_bar, mean=1, variance=1, power=1, scaled=True, axis=0, skip=1, wrt="x_hat"):
    x_hat, s = standardised(x["h"])
    seen = {"x_hat": x_hat, "x": x["h"], "y": y["h"]}[wrt]
    g = y_bar["h"] * (p["gamma"] if scaled else 1)
    by_mean = mean * g.mean(-1, keepdims=True)
    by_variance = variance * x_hat * (g * x_hat).mean(-1, keepdims=True)
    params_bar = {"gamma": (y_bar["h"] * seen).sum(0), "beta": y_bar["h"].sum(axis)}
    return params_bar, {"skip": skip * y_bar["skip"], "h": (g - by_mean - by_variance) / s**power}


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def weights(p, h, softmax):
    q, k = h @ p["Q"], h @ p["K"]
    return q, k, softmax(q @ k.T / WIDTH**0.5)


def attention(p, x):
    *_, A = weights(p, x["h"], jax.nn.softmax)
    return {"skip": x["skip"], "h": A @ (x["h"] @ p["V"]) @ p["O"]}


def attention_pullback(p, x, y, y_bar, scaled=True, full=True, K_from="q", keys=1, values=1, skip=1, swap=False):
    h, g = x["h"], y_bar["h"]
    q, k, A = weights(p, h, softmax)
    v = h @ p["V"]
    A_bar = g @ p["O"].T @ v.T
    V_bar = A.T @ (g @ p["O"].T)
    S_bar = A * (A_bar - (A * A_bar).sum(-1, keepdims=True)) if full else A * (1 - A) * A_bar
    S_bar = S_bar / (WIDTH**0.5 if scaled else 1)
    q_bar, k_bar = S_bar @ k, S_bar.T @ (q if K_from == "q" else k)
    params_bar = {"Q": h.T @ q_bar, "K": h.T @ k_bar, "V": h.T @ V_bar, "O": (A @ v).T @ g}
    if swap:
        params_bar["Q"], params_bar["K"] = params_bar["K"], params_bar["Q"]
    h_bar = q_bar @ p["Q"].T + keys * k_bar @ p["K"].T + values * V_bar @ p["V"].T
    return params_bar, {"skip": skip * y_bar["skip"], "h": h_bar}


def add(_, x):
    return x["skip"] + x["h"]


def add_pullback(_, x, y, y_bar, skip=1):
    return (), {"skip": skip * y_bar, "h": y_bar}


def mlp(p, x):
    W1, b1, W2, b2 = p
    return x + jnp.tanh(x @ W1 + b1) @ W2 + b2


def mlp_pullback(p, x, y, y_bar, residual=1, slope=True, axis=0, back=lambda W: W.T):
    W1, b1, W2, _ = p
    a = np.tanh(x @ W1 + b1)
    delta = y_bar @ W2.T * (1 - a**2 if slope else 1)
    return (x.T @ delta, delta.sum(0), a.T @ y_bar, y_bar.sum(axis)), residual * y_bar + delta @ back(W1)


def stage(forward, pullback, params=()):
    """The function compiled, and the pull-back on NumPy's arrays."""

    def in_numpy(*args, **mistake):
        return pullback(*jax.tree.map(np.asarray, args), **mistake)

    return Stage(forward.__name__, jax.jit(forward), in_numpy, params)


CHAIN = {
    "fork": stage(fork, fork_pullback),
    "norm": stage(norm, norm_pullback, {"gamma": normal(WIDTH), "beta": normal(WIDTH)}),
    "attention": stage(attention, attention_pullback, {name: normal(WIDTH, WIDTH) for name in "QKVO"}),
    "add": stage(add, add_pullback),
    "mlp": stage(mlp, mlp_pullback, (normal(WIDTH, WIDTH), normal(WIDTH), normal(WIDTH, WIDTH), normal(WIDTH))),
}
X = normal(EXAMPLES, WIDTH)


def check(x=X, mistakes=(), **options):
    """The report on the block, with other pull-backs in some stages: their names and the pull-backs."""
    chain = CHAIN | {name: CHAIN[name]._replace(pullback=pullback) for name, pullback in dict(mistakes).items()}
    return stages(list(chain.values()), x, **options)


def mistaken(name, **mistake):
    """A stage's name and its pull-back with a mistake."""
    return name, partial(CHAIN[name].pullback, **mistake)


def tampered(name, leaves, change):
    """A stage's name and a pull-back that is right but for some leaves of what it returns."""

    def pullback(*args):
        tree = dict(zip(("params_bar", "x_bar"), CHAIN[name].pullback(*args)))
        return tuple(
            jax.tree_util.tree_map_with_path(
                lambda path, g, part=part: change(g) if part + jax.tree_util.keystr(path) in leaves else g, value
            )
            for part, value in tree.items()
        )

    return name, pullback


def entry(index, change):
    """A change of one entry of an array."""

    def changed(g):
        g = g.copy()
        g[index] = change(g[index])
        return g

    return changed


GAMMA, BETA, H, SKIP = "params_bar['gamma']", "params_bar['beta']", "x_bar['h']", "x_bar['skip']"
Q, K, V, OUT = (f"params_bar['{name}']" for name in "QKVO")
WRONG = {  # by stage: what is done wrong, the cotangents that are wrong, what the note must say
    "norm": [
        ({"mean": 0}, [H], ""),
        ({"variance": 0}, [H], ""),
        ({"variance": -1}, [H], ""),
        ({"power": 2}, [H], ""),
        ({"scaled": False}, [H], ""),
        ({"axis": 1}, [BETA], "shape"),
        ({"axis": (0, 1)}, [BETA], "shape"),
        ({"skip": 0}, [SKIP], "zero"),
        ({"wrt": "x"}, [GAMMA], ""),
        ({"wrt": "y"}, [GAMMA], ""),
    ],
    "attention": [
        ({"scaled": False}, [Q, K, H], "a factor 2"),
        ({"full": False}, [Q, K, H], ""),
        ({"K_from": "k"}, [K, H], ""),
        ({"keys": 0}, [H], ""),
        ({"values": 0}, [H], ""),
        ({"swap": True}, [Q, K], ""),
        ({"skip": -1}, [SKIP], "sign"),
    ],
    "fork": [({"skip": 0}, ["x_bar"], ""), ({"h": 0}, ["x_bar"], "")],
    "add": [({"skip": 0}, [SKIP], "zero"), ({"skip": 2}, [SKIP], "a factor 2 too large")],
    "mlp": [
        ({"residual": 0}, ["x_bar"], ""),
        ({"residual": 0.999}, ["x_bar"], ""),
        ({"back": lambda W: W}, ["x_bar"], ""),
        ({"slope": False}, ["params_bar[0]", "params_bar[1]", "x_bar"], ""),
        ({"axis": 1}, ["params_bar[3]"], "shape"),
    ],
}
