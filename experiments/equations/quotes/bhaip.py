"""Bhaip's sentences."""

from experiments.equations.register import Quote

QUOTES = {
    "B1": (
        Quote(
            r"Given $f(x,y) = 2x^2 + 3xy + y^3$, the partial derivatives are: $\frac{\partial f}{\partial x} = "
            r"4x + 3y$ $\frac{\partial f}{\partial y} = 3x + 3y^2$"
        ),
    ),
    "B2": (
        Quote(
            "The gradient itself points in the direction of steepest ascent, so naturally taking the negative "
            "of the gradient points in the direction of steepest descent."
        ),
        Quote(
            "Take a step too long, and we could overshoot the minimum. Take a step too short and it will take "
            "us many steps to reach the minimum."
        ),
        Quote("What if there are multiple minima, and we just happen to land in a local minimum"),
    ),
    "B3": (
        Quote(
            r"$W_i = W_i - \alpha \frac{\partial E}{\partial W_i}$ … $b_i = b_i - \alpha \delta_i$ … normally "
            "ranges from 0.1 to 0.0001"
        ),
    ),
    "B4": (Quote(r"there are 20 total weights (3\*4+4\*2=20) and 6 biases"),),
    "B5": (
        Quote(r"$E = \frac{1}{2}||x_2 - y||^2$"),
        Quote(
            "Essentially, this is the magnitude of the difference between the target and the network's output.",
            "half the square of that magnitude",
        ),
        Quote(
            "the derivative of E with respect to y is just $x_2 - y$",
            "with respect to $x_2$",
        ),
    ),
    "B6": (
        Quote(r"$\delta_L = (x_L - y) \odot \sigma'(W_L x_{L-1} + b_L)$"),
        Quote(r"$\delta_i = W_{i+1}^T \delta_{i+1} \odot \sigma'(W_i x_{i-1} + b_i)$"),
        Quote(r"$\frac{\partial E}{\partial W_i} = \delta_i x_{i-1}^T$"),
    ),
    "B7": (
        Quote(
            r"Since $\delta_2 = (y - \sigma(W_2 x_1 + b_2)) \odot \sigma'(W_2 x_1 + b_2)$",
            r"$\delta_2 = (\sigma(W_2 x_1 + b_2) - y) \odot \sigma'(W_2 x_1 + b_2)$",
        ),
    ),
    "B8": (
        Quote(
            r"$\frac{\partial E}{\partial W_1} = [(x_2 - y) \odot \sigma'(W_2 x_1 + b_2)] \frac{\partial (W_2 "
            r"x_1 + b_2)}{\partial W_1}$"
        ),
    ),
    "B9": (Quote(r"$\sigma'(x) = \sigma(x)(1 - \sigma(x))$"),),
    "B10": (
        Quote(
            "in order to find the minimum of a multidimensional function, we just need to compute the gradient, "
            "… and repeat until the gradient is 0",
            "a gradient of 0 may also be a saddle's: no curvature may be negative",
        ),
        Quote(
            "We repeat this process over and over until every single direction is an incline, at which point we "
            "are at the minimum. … we'll just pretend we're working with an error function with one minimum"
        ),
    ),
    "B11": (
        Quote("for a neuron with n weights and a bias, the error can be graphed as an n+2 dimensional function"),
        Quote(
            "This is because there are n weights, 1 bias, and an original input",
            "$n$ weights, 1 bias, and the axis of $E$",
        ),
    ),
    "B12": (
        Quote("Note that these formulas work for any activation function."),
        Quote(
            "Note that these formulas work for any activation function.",
            "for one with a derivative that is not 0 almost everywhere",
        ),
        Quote(
            "Note that these formulas work for any activation function.",
            r"for one that acts on single entries; softmax: $\delta_L = J^T (x_L - y)$",
        ),
    ),
    "B13": (Quote("From elementary calculus, we know that: $f(x) = x^2$ $f'(x) = 2x$"),),
    "B14": (
        Quote(
            r"$\frac{\partial E}{\partial W_2} = (x_2 - y) \frac{\partial (\sigma(W_2 x_1 + b_2))}{\partial "
            "W_2}$"
        ),
        Quote(
            r"$\frac{\partial E}{\partial W_2} = \delta_2 \frac{\partial (W_2 x_1 + b_2)}{\partial W_2} = "
            r"\delta_2 x_1^T$"
        ),
        Quote(
            r"$\frac{\partial E}{\partial W_1} = (x_2 - y) \frac{\partial (\sigma(W_2 x_1 + b_2))}{\partial "
            "W_1}$"
        ),
        Quote(
            r"$\frac{\partial E}{\partial W_1} = \delta_2 \frac{\partial (W_2 x_1 + b_2)}{\partial W_1} = W_2^T "
            r"\delta_2 \frac{\partial x_1}{\partial W_1}$"
        ),
        Quote(
            r"$\frac{\partial E}{\partial W_1} = [W_2^T \delta_2 \odot \sigma'((W_1 x_0 + b_1))] \frac{\partial "
            r"(W_1 x_0 + b_1)}{\partial W_1}$"
        ),
    ),
    "B15": (
        Quote(
            "move in that direction for a certain length … This is essentially the same thing as the learning "
            r"rate $\alpha$ … The step length is actually just a constant",
            r"$\alpha$ is a constant; the step has the length $\alpha ||\nabla E||$",
        ),
    ),
}
