"""Hedges, *A brief introduction to neural networks and back propagation* (talk, 2022)."""

import fnn
from experiments.equations.common import oracle, problem, relative
from experiments.equations.register import erratum, row, true


@row("fnn.network.Dense")
def H6():
    """W^ℓ_ij connects neuron i of layer ℓ−1 to neuron j of layer ℓ."""
    p = problem((3, 3, 2), batch=None)  # as many inputs as neurons, or the shapes alone would tell
    W, b, a_in = p.params[0].W, p.params[0].b, p.x
    right = fnn.trace(p.params, p.x)[0].psi
    printed = [sum(W[i, j] * a_in[i] for i in range(3)) + b[j] for j in range(3)]
    swapped = [sum(W[j, i] * a_in[i] for i in range(3)) + b[j] for j in range(3)]
    return erratum(
        "z_j = Σ_i W_ij a_i + b_j", relative(printed, list(right)), "z_j = Σ_i W_ji a_i + b_j",
        relative(swapped, list(right)), against="z = W a + b (H5)",
    )  # fmt: skip


@row("fnn.backward.hidden_delta", "fnn.backward.layer_input_gradient")
def H9():
    """The δ of a hidden layer from that of the next: (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ)."""
    p = problem((3, 5, 4, 2), batch=None)
    right, traces = oracle(p).deltas, fnn.trace(p.params, p.x)
    printed = [
        (after.W.T @ delta) * layer.activation.derivative(t.z, t.a)
        for layer, t, after, delta in zip(p.params, traces, p.params[1:], right[1:])
    ]
    ours = fnn.deltas(p.params, p.x, p.y, loss=p.loss)
    return true("δ^ℓ = (W^{ℓ+1})ᵀ δ^{ℓ+1} ⊙ σ'(z^ℓ)", max(relative(printed, list(right[:-1])), relative(ours, right)))
