"""Lopez Davila's sentences; δ stands for ∂ in them."""

from experiments.equations.register import Quote

QUOTES = {
    "L1": (
        Quote(
            r"$z_i = w_1 a_1 + w_2 a_2 + \cdots + w_n a_n$ … where i = [1, # of neurons in hidden layer]",
            r"$z_i = w_{i1} a_1 + w_{i2} a_2 + \cdots + w_{in} a_n + b_i$",
        ),
        Quote(
            r"$w_{k,0}$ … $w_{k,n}$ … $\begin{pmatrix} a_0 \\ \vdots \\ a_n \end{pmatrix} + \begin{pmatrix} b_0 "
            r"\\ \vdots \\ b_n \end{pmatrix}$",
            r"$\begin{pmatrix} b_0 \\ \vdots \\ b_k \end{pmatrix}$",
        ),
        Quote(
            "Each row in matrix … represents the weights corresponding with each hidden layer",
            "with each neuron of the hidden layer",
        ),
    ),
    "L2": (
        Quote(r"Sigmoid/Logistic $f(x) = \frac{1}{1 + e^{-\beta x}}$"),
        Quote(
            r"Piecewise Linear $f(x) = \begin{cases} 0 \text{ if } x \le x_{min} \\ mx + b \text{ if } x_{max} > "
            r"x > x_{min} \\ 1 \text{ if } x \ge x_{max} \end{cases}$"
        ),
        Quote(
            r"Gaussian $f(x) = \frac{1}{\sqrt{2\pi\sigma}} e^{\frac{-(x-\mu)^2}{2\sigma^2}}$",
            r"$\frac{1}{\sigma\sqrt{2\pi}} e^{\frac{-(x-\mu)^2}{2\sigma^2}}$",
        ),
        Quote(
            r"Threshold/Unit Step $f(x) = \begin{cases} 0 & \text{if } 0 > x \\ 1 & \text{if } x \ge 0 "
            r"\end{cases}$"
        ),
        Quote("ReLu f(x) = max(0, x)"),
        Quote(r"Tanh $f(x) = \tanh(x)$"),
    ),
    "L3": (
        Quote(r"$\vec{z}_2 = [\vec{w}_2 \vec{w}_1] \vec{a} + [\vec{w}_2 \vec{b}_1 + \vec{b}_2]$"),
        Quote(
            "a composition of two linear functions is a linear function itself",
            "affine, both times",
        ),
    ),
    "L4": (Quote("The output node with the highest activation number will determine how the input is classified."),),
    "L5": (
        Quote(r"$\Sigma 0.5(y - \hat{y})^2$"),
        Quote(
            r"$MSE\ Cost = \Sigma 0.5(y - \hat{y})^2$",
            "half the sum of the squared errors",
        ),
    ),
    "L6": (
        Quote(
            r"$Cross\ Entropy\ Cost = \Sigma(\hat{y}\log(y) + (1 - \hat{y})\log(1 - y))$",
            r"$-\Sigma(y\log(\hat{y}) + (1 - y)\log(1 - \hat{y}))$",
        ),
    ),
    "L7": (
        Quote(
            r"$\frac{\delta C}{\delta w^L} = \frac{1}{n} \sum_{k=0}^{n-1} \frac{\delta C_k}{\delta w^L}$ … "
            r"$\frac{\delta C}{\delta b^L} = \frac{1}{n} \sum_{k=0}^{n-1} \frac{\delta C_k}{\delta b^L}$"
        ),
        Quote(
            "in order to account for every weight in that layer, the average of the derivatives is taken",
            "to account for every example",
        ),
    ),
    "L8": (
        Quote(r"$\frac{\delta C_k}{\delta w^L} = a^{L-1}\sigma'(z^L) 2(a^L - y)$"),
        Quote(r"$\frac{\delta C_k}{\delta b^L} =$ … $= \sigma'(z^L) \ 2(a^L - y)$"),
        Quote(
            r"$\frac{\delta C_k}{\delta b^L} = \frac{\delta z^L}{\delta b^L} \frac{\delta a^L}{\delta z^L} "
            r"\frac{\delta C}{\delta a^L}$",
            r"$\frac{\partial z^L}{\partial b^L} \frac{\partial a^L}{\partial z^L} \frac{\partial C_k}{\partial "
            "a^L}$",
        ),
        Quote(r"$\frac{\delta c_k}{\delta a^{L-1}} =$ … $= w^L \sigma'(z^L) \ 2(a^L - y)$"),
        Quote(
            r"$\frac{\delta c_k}{\delta a^{L-1}} = \frac{\delta z^L}{\delta a^{L-1}} \frac{\delta a^L}{\delta "
            r"z^L} \frac{\delta c}{\delta z^L}$",
            r"$\frac{\partial z^L}{\partial a^{L-1}} \frac{\partial a^L}{\partial z^L} \frac{\partial "
            r"C_k}{\partial a^L}$",
        ),
    ),
    "L9": (
        Quote(
            r"$\nabla C = \begin{bmatrix} \frac{\delta C}{\delta w^1} \\ \frac{\delta C}{\delta b^1} \\ \vdots "
            r"\\ \frac{\delta C}{\delta w^L} \\ \frac{\delta C}{\delta b^L} \end{bmatrix}$"
        ),
    ),
    "L10": (Quote("In reverse, this algorithm is better known as Backpropagation."),),
    "L11": (
        Quote(
            "The gradient of the cost function tells us in which direction … decreases most quickly.",
            r"in which direction $C$ *increases* most quickly; $-\nabla C$ is that of the descent",
        ),
    ),
    "L12": (
        Quote(
            r"$h_i = \sigma(z_i) = \sigma(w_1 a_1 + w_2 a_2 + \cdots + w_n a_n + b)$",
            r"$h_i = \sigma(w_{i1} a_1 + w_{i2} a_2 + \cdots + w_{in} a_n + b_i)$",
        ),
        Quote(r"$\overline{h^1} = \sigma(\vec{w}\vec{a} + \vec{b})$"),
    ),
    "L13": (Quote("Without an activation function, the neural network behaves like a linear regression model."),),
    "L14": (
        Quote(
            "Different weights and biases will produce different output.",
            "may produce different output",
        ),
        Quote(
            "The loss function tells the machine how far away the combination of weights and biases is from the "
            "optimal solution.",
            "how far the outputs are from the targets",
        ),
    ),
    "L15": (
        Quote(
            "With each epoch, the machine converges towards the local minimum.",
            "if the learning rate is small enough",
        ),
    ),
    "L16": (
        Quote("It is efficient, stable, precise, and known to be a better choice than other types"),
        Quote("It is efficient, stable, precise, and known to be a better choice than other types"),
        Quote(
            "It is efficient, stable, precise, and known to be a better choice than other types",
            "stable where every intermediate value is finite",
        ),
    ),
    "L17": (
        Quote(
            "Backpropagation has been called into question recently, as it does not learn continuously. … our "
            "brains … do not forget information when we learn something new",
            "training forgets examples that it no longer sees, whatever computes its gradients",
        ),
    ),
}
