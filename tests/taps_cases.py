"""Functions that name their quantities, with the δ's derived by hand, in NumPy, and the mistakes that people make.

Each hand-written function takes its mistakes as keywords and returns (gradient, δ's).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fnn.verify import gradient, tap

EPS = 1e-5
random = np.random.default_rng(11)


def normal(*shape):
    return random.normal(size=shape)


# -- a residual block: h = x W0, y = h + tanh(h W1) W2 -----------------------------------------------------------


def residual(p, x):
    h = tap("h", x @ p["W0"])
    z = tap("z", h @ p["W1"])
    y = tap("y", h + jnp.tanh(z) @ p["W2"])
    return (y**2).sum() / 2


def residual_by_hand(p, x, skip=1, slope=True, branch=1):
    h = x @ p["W0"]
    a = np.tanh(h @ p["W1"])
    y = h + a @ p["W2"]
    dz = y @ p["W2"].T * (1 - a**2 if slope else 1)
    dh = skip * y + branch * dz @ p["W1"].T
    return {"W0": x.T @ dh, "W1": h.T @ dz, "W2": a.T @ y}, {"y": y, "z": dz, "h": dh}


# -- layer norm with its gain ------------------------------------------------------------------------------------


def layer_norm(p, x, y):
    h = tap("h", x @ p["W"])
    x_hat = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + EPS)
    x_hat = tap("x_hat", x_hat)
    return ((p["gamma"] * x_hat + p["beta"] - y) ** 2).sum() / 2


def layer_norm_by_hand(p, x, y, gain=True, mean=1, variance=1):
    h = x @ p["W"]
    s = np.sqrt(h.var(-1, keepdims=True) + EPS)
    x_hat = (h - h.mean(-1, keepdims=True)) / s
    e = p["gamma"] * x_hat + p["beta"] - y
    g = e * (p["gamma"] if gain else 1)
    dh = (g - mean * g.mean(-1, keepdims=True) - variance * x_hat * (g * x_hat).mean(-1, keepdims=True)) / s
    return {"W": x.T @ dh, "gamma": (e * x_hat).sum(0), "beta": e.sum(0)}, {"x_hat": g, "h": dh}


# -- attention of one head ---------------------------------------------------------------------------------------


def attention(p, x):
    q, k, v = (tap(name, x @ p[name.upper()]) for name in "qkv")
    s = tap("s", q @ k.T / k.shape[1] ** 0.5)
    A = tap("A", jax.nn.softmax(s))
    o = tap("o", A @ v)
    return (o**2).sum() / 2


def attention_by_hand(p, x, scaled=True, full=True, transposed=True):
    q, k, v = (x @ p[name] for name in "QKV")
    e = np.exp(q @ k.T / k.shape[1] ** 0.5)
    A = e / e.sum(-1, keepdims=True)
    o = A @ v
    dA, dv = o @ v.T, (A.T if transposed else A) @ o
    ds = A * (dA - (A * dA).sum(-1, keepdims=True)) if full else A * (1 - A) * dA
    root = k.shape[1] ** 0.5 if scaled else 1
    dq, dk = ds @ k / root, ds.T @ q / root
    deltas = {"o": o, "A": dA, "v": dv, "s": ds, "q": dq, "k": dk}
    return {name.upper(): x.T @ deltas[name] for name in "qkv"}, deltas


# -- a step of an LSTM: i, f, o = σ(·), g = tanh(·), c' = f c + i g, h' = o tanh(c') -----------------------------------


def lstm(p, x, h, c):
    z = {gate: tap(f"z_{gate}", x @ p[f"W_{gate}"] + h @ p[f"U_{gate}"]) for gate in "ifog"}
    i, f, o = (jax.nn.sigmoid(z[gate]) for gate in "ifo")
    c = tap("c", f * c + i * jnp.tanh(z["g"]))
    h = tap("h", o * jnp.tanh(c))
    return (h**2).sum() / 2 + (c**2).sum() / 2


def lstm_by_hand(p, x, h, c, through_h=1, of_loss=1, slope=True, swap=False):
    z = {gate: x @ p[f"W_{gate}"] + h @ p[f"U_{gate}"] for gate in "ifog"}
    i, f, o = (1 / (1 + np.exp(-z[gate])) for gate in "ifo")
    g = np.tanh(z["g"])
    new = f * c + i * g
    t = np.tanh(new)
    dh = o * t
    dc = of_loss * new + through_h * dh * o * (1 - t**2)
    dz = {"i": dc * g * i * (1 - i), "f": dc * c * f * (1 - f), "o": dh * t * o * (1 - o if slope else 1),
          "g": dc * i * (1 - g**2)}  # fmt: skip
    if swap:
        dz["i"], dz["f"] = dz["f"], dz["i"]
    by_W = {f"W_{gate}": x.T @ d for gate, d in dz.items()}
    by_U = {f"U_{gate}": h.T @ d for gate, d in dz.items()}
    return by_W | by_U, {"h": dh, "c": dc} | {f"z_{gate}": d for gate, d in dz.items()}


def weights(names, *shape):
    return {name: normal(*shape) for name in names.split()}


CASES = {
    "residual": (residual_by_hand, residual, weights("W0 W1 W2", 4, 4), normal(5, 4)),
    "layer norm": (layer_norm_by_hand, layer_norm, {"W": normal(3, 4)} | weights("gamma beta", 4), normal(5, 3),
                   normal(5, 4)),
    "attention": (attention_by_hand, attention, weights("Q K V", 4, 4), normal(5, 4)),
    "lstm": (lstm_by_hand, lstm, weights("W_i W_f W_o W_g", 3, 4) | weights("U_i U_f U_o U_g", 4, 4), normal(5, 3),
             normal(5, 4), normal(5, 4)),
}  # fmt: skip
WRONG = [  # what is done wrong, the quantities that are wrong alone, and what the note of the first says
    ("residual", {"skip": 0}, ["h"], "the term through the skip connection is missing"),
    ("residual", {"branch": 0}, ["h"], "the term through z is missing"),
    ("residual", {"slope": False}, ["z"], "the derivative of tanh is missing"),
    ("layer norm", {"gain": False}, ["x_hat"], ""),
    ("layer norm", {"mean": 0}, ["h"], "the term through the mean"),
    ("layer norm", {"variance": 0}, ["h"], ""),
    ("attention", {"scaled": False}, ["k", "q"], "a factor 2 too large"),
    ("attention", {"full": False}, ["s"], ""),
    ("attention", {"transposed": False}, ["v"], ""),
    ("lstm", {"through_h": 0}, ["c"], "the term through h is missing"),
    ("lstm", {"of_loss": 0}, ["c"], "the term through the objective is missing"),
    ("lstm", {"slope": False}, ["z_o"], ""),
    ("lstm", {"swap": True}, ["z_f", "z_i"], ""),
]


def check(name, mistake=None, **options):
    hand, objective, params, *args = CASES[name]
    return gradient(partial(hand, **(mistake or {})), objective, params, *args, **options)


# -- a recurrent network of several steps, in a loop -------------------------------------------------------------

STEPS = 6


def rnn(p, X, y):
    h = jnp.zeros_like(y)
    for x in X:
        h = tap("h", jnp.tanh(tap("z", h @ p["W"].T + x @ p["U"].T + p["b"])))
    return 0.5 * ((h - y) ** 2).sum()


def rnn_in_a_scan(p, X, y):
    def step(h, x):
        h = tap("h", jnp.tanh(tap("z", h @ p["W"].T + x @ p["U"].T + p["b"])))
        return h, None

    return 0.5 * ((jax.lax.scan(step, jnp.zeros_like(y), X)[0] - y) ** 2).sum()


def rnn_by_hand(p, X, y, flat_at=None, forgotten_at=None):
    h = [np.zeros_like(y)]
    for x in X:
        h.append(np.tanh(h[-1] @ p["W"].T + x @ p["U"].T + p["b"]))
    g, by, deltas = h[-1] - y, {name: np.zeros_like(leaf) for name, leaf in p.items()}, {"h": [], "z": []}
    for t in reversed(range(len(X))):
        deltas["h"].insert(0, g)
        d = g if t == flat_at else g * (1 - h[t + 1] ** 2)
        deltas["z"].insert(0, d)
        by["W"] += 0 if t == forgotten_at else d.T @ h[t]
        by["U"] += d.T @ X[t]
        by["b"] += d.sum(0)
        g = d @ p["W"]
    return by, {name: np.stack(values) for name, values in deltas.items()}


RNN = {"W": normal(5, 5), "U": normal(5, 3), "b": normal(5)}, normal(STEPS, 4, 3), normal(4, 5)
