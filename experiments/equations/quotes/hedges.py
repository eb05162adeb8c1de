"""Hedges's sentences."""

from experiments.equations.register import Quote

QUOTES = {
    "H1": (
        Quote(
            r"Similarly if $f'(x_0) > 0$ we let $x_1 = x_0 + \epsilon$",
            "if $f'(x_0) < 0$",
        ),
        Quote(
            r"if we let $x_1 = x_0 - \epsilon$, we should have $f(x_1) < f(x_0)$",
            r"if $\epsilon$ is small enough; on $x^2$, if $\epsilon < 2 x_0$",
        ),
        Quote(
            "If we have $f'(x_0) > 0$ … Similarly if $f'(x_0) > 0$ … We can proceed from here",
            "if $f'(x_0) = 0$, stop: $x_1 = x_0$",
        ),
    ),
    "H2": (Quote("Let's quickly look at a toy example, $f(x) = x^2$"),),
    "H3": (
        Quote(r"$x_{n+1} = x_n - \epsilon \nabla C(x_n)$"),
        Quote(r"$w_{jk}^{\ell} + = -\epsilon \frac{\partial C}{\partial w_{jk}^{\ell}}$"),
    ),
    "H4": (Quote(r"a standard linear regression model may be solved by: $\vec{v} = (A^T A)^{-1} A^T \vec{y}$"),),
    "H5": (Quote(r"$a^{\ell} = \sigma(z^{\ell}) = \sigma(W^{\ell}a^{\ell-1} + b^{\ell})$"),),
    "H6": (
        Quote(
            r"$W_{i,j}^{\ell}$ is the weight connecting the *i*th neuron in the $\ell-1$th layer to the jth "
            r"neuron in the $\ell$th layer",
            r"the $j$th neuron in layer $\ell-1$ to the $i$th neuron in layer $\ell$",
        ),
    ),
    "H7": (
        Quote("$C(x,y) = ||y - a^{L}(x)||^{2}$"),
        Quote(
            "we'll just use MSE as our example",
            "the squared error, a sum over the outputs",
        ),
    ),
    "H8": (Quote(r"$\delta^{\ell} = \frac{\partial C}{\partial z^{\ell}}$"),),
    "H9": (Quote(r"$\delta^{\ell} = (W^{[\ell+1]^T} \cdot \delta^{\ell+1}) \odot \sigma'(z^{\ell})$"),),
    "H10": (
        Quote(
            r"$\frac{\partial C}{\partial w^{\ell}} = \delta^{\ell} a^{\ell-1}$ … $W^{L} + = -\epsilon "
            r"\delta^{L} a^{L-1}$",
            r"$\frac{\partial C}{\partial W^{\ell}} = \delta^{\ell} (a^{\ell-1})^T$",
        ),
        Quote(r"$\frac{\partial C}{\partial b^{\ell}} = \delta^{\ell}$"),
    ),
    "H11": (
        Quote(
            r"We then update our model as follows: … We then compute $\delta^{L-1}$ … We can now inductively "
            "proceed updating each layer as we go backwards.",
            r"compute $\delta^{L-1}$ first, from $W^{L}$ as it was, then update $W^{L}$",
        ),
    ),
    "H12": (
        Quote(
            r"$\frac{\partial C}{\partial w^1} = \frac{\partial C}{\partial a^L} \cdot \frac{\partial "
            r"a^L}{\partial z^L} \cdot \dots \cdot \frac{\partial z^1}{\partial w^1}$ Which is a lot of chain "
            "rule if we approach this naively."
        ),
    ),
    "H13": (
        Quote(
            r"$\delta^{\ell} = \delta^{\ell+1} \cdot \frac{\partial z^{\ell+1}}{\partial a^{\ell}} \cdot "
            r"\frac{a^{\ell}}{\partial z^{\ell}}$",
            r"$\frac{\partial a^{\ell}}{\partial z^{\ell}}$",
        ),
        Quote(
            r"$\delta^{\ell} = (W^{[\ell+1]^{T}} \cdot \delta^{\ell+1}) \otimes \sigma'(z^{\ell})$",
            r"$\delta^{\ell} = ((W^{\ell+1})^{T} \delta^{\ell+1}) \odot \sigma'(z^{\ell})$",
        ),
    ),
    "H14": (
        Quote(
            r"$\frac{\partial z^{\ell}}{\partial W^{\ell}} = a^{\ell-1}$ $\frac{\partial z^{\ell}}{\partial "
            r"b^{\ell}} = 1$"
        ),
        Quote(
            r"$\frac{\partial z^{\ell}}{\partial W^{\ell}} = a^{\ell-1}$",
            r"$\frac{\partial z_i^{\ell}}{\partial W_{jk}^{\ell}} = [i = j] \, a_k^{\ell-1}$",
        ),
        Quote(
            r"$\frac{\partial z^{\ell}}{\partial b^{\ell}} = 1$",
            r"$\frac{\partial z_i^{\ell}}{\partial b_j^{\ell}} = [i = j]$",
        ),
    ),
    "H15": (
        Quote(r"$\frac{\partial z^{\ell+1}}{\partial a^{\ell}} = w^{\ell+1}$"),
        Quote(
            r"$\frac{\partial a^{\ell}}{\partial z^{\ell}} = \sigma'(z^{\ell})$",
            r"$\frac{\partial a^{\ell}}{\partial z^{\ell}} = \mathrm{diag}\, \sigma'(z^{\ell})$",
        ),
        Quote(
            r"We now again use a nice chain rule here to see: $\delta^{\ell} = \frac{\partial C}{\partial "
            r"z^{\ell}} = \frac{\partial C}{\partial z^{\ell+1}} \cdot \frac{\partial z^{\ell+1}}{\partial "
            r"a^{\ell}}$ …"
        ),
    ),
    "H16": (
        Quote(
            r"$\delta^{L-1} = (W^{[L]^T} \cdot \delta^{L1}) \otimes \sigma'(z^{L-1})$",
            r"$\delta^{L-1} = ((W^{L})^T \delta^{L}) \odot \sigma'(z^{L-1})$",
        ),
    ),
    "H17": (
        Quote(
            r"we must start with $\ell = 0$ and compute the activation of each layer one at a time",
            r"start with $\ell = 1$, $a^0 = x$",
        ),
    ),
    "H18": (
        Quote(
            r"Chain Rule: $\frac{\partial C}{\partial w^{\ell}} = \frac{\partial C}{\partial z^{\ell}} "
            r"\frac{\partial z^{\ell}}{\partial w^{\ell}}$"
        ),
        Quote(
            r"Chain Rule: $\frac{\partial C}{\partial b^{\ell}} = \frac{\partial C}{\partial z^{\ell}} "
            r"\frac{\partial z^{\ell}}{\partial b^{\ell}}$"
        ),
    ),
}
