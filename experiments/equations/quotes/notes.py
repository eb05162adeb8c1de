"""The handwritten notes' sentences."""

from experiments.equations.register import Quote

QUOTES = {
    "N1": (
        Quote(r"if $\sigma$ is the sgn function, we can output $+1$ if $w^T x \geq -b$ $-1$ if $w^T x < -b$"),
        Quote(
            r"$w^T x + b = 0$ is a hyperplane in $\mathbb{R}^d$. and neuron simply divides the input space into "
            "two parts corresponding to $+1$ and $-1$"
        ),
        Quote(r"bias $b$ is important … instead of $w^T x \geq 0$"),
    ),
    "N2": (
        Quote(r"$y_i^{(1)} = \sigma(x_i^{(1)}), \text{ with } x_i^{(1)} = \sum_j W_{ij}^{(1)} x_j + b_i^{(1)}$"),
        Quote(r"$y^{(M)} = \sigma(x^{(M)}) \text{ , with } x^{(M)} = W^{(M)}y^{(M-1)} + b^{(M)}$"),
        Quote(
            r"$y^{(1)} = \sigma(x^{(0)}) \text{ , with } x^{(0)} = W^{(0)}x + b^{(0)}$",
            r"$y^{(1)} = \sigma(x^{(1)})$, with $x^{(1)} = W^{(1)}x + b^{(1)}$",
        ),
    ),
    "N3": (
        Quote(
            r"approximate functions mapping inputs and outputs … $\hat{y} = y^{(M)} \approx f^*(x) = y$ … "
            "unknown"
        ),
    ),
    "N4": (
        Quote(r"$J = \sum_{n=1}^N L(y[n], \hat{y}[n])$ … $L(y, \hat{y}) = (y - \hat{y})^2$"),
        Quote(r"$\frac{\partial L}{\partial y^{(M)}}(y^{[n]}, y^{(M)[n]}) = 2(y^{(M)[n]} - y^{[n]})$"),
        Quote("Since $J$ is a sum, we can compute the gradient for each term separately."),
    ),
    "N5": (
        Quote(
            r"$\frac{\partial L}{\partial y_i^{(m)}} = \sum_k \frac{\partial L}{\partial y_k^{(m+1)}} "
            r"\sigma'(x_k^{(m+1)}) w_{ki}^{(m+1)}$"
        ),
        Quote(
            r"$\frac{\partial L}{\partial w_{ij}^{(m)}} = \frac{\partial L}{\partial y_i^{(m)}} "
            r"\sigma'(x_i^{(m)}) y_j^{(m-1)}$ $\frac{\partial L}{\partial b_i^{(m)}} = \frac{\partial "
            r"L}{\partial y_i^{(m)}} \sigma'(x_i^{(m)})$"
        ),
        Quote(
            r"(1) Compute $\frac{\partial L}{\partial y_i^{(m)}}$ for all $i$",
            r"(1) Compute $\frac{\partial L}{\partial y_i^{(M)}}$ for all $i$",
        ),
        Quote(
            r"(2) For $m = M$ down to 1. … Where $\frac{\partial L}{\partial y_i^{(m)}} = \sum_k \frac{\partial "
            r"L}{\partial y_k^{(m+1)}} \sigma'(x_k^{(m+1)}) w_{ki}^{(m+1)}$",
            "Where, for $m < M$, …",
        ),
    ),
    "N6": (
        Quote("Gradient computation can be performed in parallel for different data points"),
        Quote("Gradient computation can be performed in parallel for different data points"),
        Quote("Gradient computation can be performed in parallel for different data points"),
    ),
    "N7": (
        Quote(
            "In practice iterates are generated using gradients of only subset of data points for each "
            "iteration: (Batch) Stochastic Gradient Descent (SGD)"
        ),
    ),
    "N8": (
        Quote(
            r"$\underbrace{\frac{\partial L}{\partial y_i^{(m)}}}_{=1} \cdot \frac{\partial y_i^{(m)}}{\partial "
            r"x_i^{(m)}} \cdot \frac{\partial x_i^{(m)}}{\partial b_i^{(m)}}$",
            r"$\underbrace{\frac{\partial x_i^{(m)}}{\partial b_i^{(m)}}}_{=1}$",
        ),
    ),
}
