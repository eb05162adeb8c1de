"""Strabel's sentences."""

from experiments.equations.register import Quote

QUOTES = {
    "S1": (
        Quote(r"$o_k = \sigma_k(\psi_k)$ … $\psi_k = \sum_{l:(l,k) \in A} w_{kl} o_l + \beta_k \quad (1)$"),
        Quote(
            "A neural network is a directed graph",
            "a directed graph without cycles",
        ),
    ),
    "S2": (
        Quote(
            r"$\frac{\partial L}{\partial w_{kj}} = \frac{\partial L}{\partial \psi_k} \frac{\partial "
            r"\psi_k}{\partial w_{kj}} = \lambda_k o_j \quad (2)$"
        ),
        Quote(r"$\frac{\partial L}{\partial \beta_k} = \frac{\partial L}{\partial \psi_k} = \lambda_k \quad (3)$"),
        Quote(
            r"$\lambda_k = \frac{\partial L}{\partial \psi_k} =$ … $\sum_{l:(k,l) \in A} \lambda_l w_{lk} "
            r"\sigma'_k(\psi_k) \quad (4)$"
        ),
        Quote(
            r"$\lambda_k = \frac{\partial L}{\partial \psi_k} =$ … $\sum_{l:(k,l) \in A} \lambda_l w_{lk} "
            r"\sigma'_k(\psi_k) \quad (4)$",
            r"$+ \frac{\partial L}{\partial o_k} \sigma'_k(\psi_k)$, if $o_k$ is an output",
        ),
    ),
    "S3": (
        Quote(
            r"$\lambda_{li} = \frac{\partial L_i}{\partial \psi_{li}} = \frac{\partial L_i}{\partial z_{li}} "
            r"\sigma'_l(\psi_{li}) \quad (5)$"
        ),
        Quote(
            r"$w_{kl} \leftarrow w_{kl} - \eta$ … $= w_{kl} - \eta \sum_{i=1}^m \lambda_{li} o_{li} \quad (6)$",
            r"$w_{lj} \leftarrow w_{lj} - \eta \sum_{i=1}^m \lambda_{li} o_{ji}$",
        ),
        Quote(r"$= \beta_l - \eta \sum_{i=1}^m \lambda_{li} \quad (7)$"),
        Quote(
            r"$w_{kj} \leftarrow w_{kj} - \eta \sum_{i=1}^m \frac{\partial L_i}{\partial w_{kj}} = w_{kj} - \eta "
            r"\sum_{i=1}^m \lambda_{ki} o_{ji} \quad (8)$"
        ),
        Quote(r"$= \beta_k - \eta \sum_{i=1}^m \lambda_{ki} \quad (9)$"),
    ),
    "S4": (
        Quote(r"$\psi_k = \sum_{l:(l,k) \in A} w_{kl} r_{kl} o_l + \beta_k \quad (11)$"),
        Quote(
            r"$\frac{\partial L}{\partial w_{kj}} = \frac{\partial L}{\partial \psi_k} \frac{\partial "
            r"\psi_k}{\partial w_{kj}} = \lambda_k o_j r_{kj} \quad (12)$"
        ),
        Quote(r"$\sum_{l:(k,l) \in A} \lambda_l w_{lk} r_{lk} \sigma'_k(\psi_k) \quad (13)$"),
        Quote(
            r"$r_{kl} \sim \text{Bernoulli}(p_{kl})$ and $p_{kl} \in [0, 1]$",
            "$p_{kl}$ is the probability to keep",
        ),
        Quote(r"$\psi_k = \sum_{l:(l,k) \in A} w_{kl} r_{kl} o_l + \beta_k \quad (11)$"),
        Quote(
            "Dropout is a method for preventing overfitting.",
            "(11) is DropConnect (Wan et al. 2013)",
        ),
    ),
    "S5": (
        Quote(
            r"At test time, rather than use (10), we use: $\psi_k = \sum_{l:(l,k) \in A} w_{kl} p_{kl} o_l + "
            r"\beta_k \quad (14)$"
        ),
        Quote(
            r"At test time, rather than use (10), we use: $\psi_k = \sum_{l:(l,k) \in A} w_{kl} p_{kl} o_l + "
            r"\beta_k \quad (14)$"
        ),
    ),
    "S6": (
        Quote(
            r"$\hat{\psi}_{ki} = \gamma_k \frac{\psi_{ki} - \hat{\mu}_k}{\sqrt{\hat{\nu}_k^2 + \epsilon}} + "
            r"\theta_k \quad (17)$"
        ),
        Quote(
            r"$\gamma_k, \delta_k \in \mathbb{R}$ are additional parameters to learn",
            r"$\gamma_k, \theta_k \in \mathbb{R}$",
        ),
    ),
    "S7": (
        Quote(
            r"$\frac{\partial L_i}{\partial \hat{\psi}_{ki}} =$ … $\sum_{l:(k,l) \in A} \lambda_{li} w_{lk} "
            r"\sigma'_k(\hat{\psi}_{ki}) \quad (20)$"
        ),
        Quote(
            r"$\lambda_{ki} =$ … $\sigma'_k(\hat{\psi}_{ki}) \frac{\gamma_k}{\sqrt{\hat{\nu}_k^2 + \epsilon}} "
            r"\quad (21)$"
        ),
        Quote(
            "in the discussion below I deviate slightly from Ioffe and Szegedy (2015) … During the backwards "
            r"pass we treat $\hat{\mu}_k$ and $\hat{\nu}_k^2$ as fixed.",
            r"Ioffe and Szegedy differentiate through $\hat{\mu}_k$ and $\hat{\nu}_k^2$ too",
        ),
        Quote(
            r"$\frac{\partial L_i}{\partial \gamma_k} =$ … $\sigma'_k(\hat{\psi}_{ki}) \frac{\psi_{ki} - "
            r"\hat{\mu}_k}{\sqrt{\hat{\nu}_k^2 + \epsilon}} \quad (22)$"
        ),
        Quote(
            r"$\frac{\partial L_i}{\partial \theta_k} =$ … $\sum_{l:(k,l) \in A} \lambda_{li} w_{lk} \sigma'_k "
            r"\left( \hat{\psi}_{ki} \right) \quad (23)$"
        ),
        Quote(
            r"$\gamma_k \leftarrow \gamma_k - \eta \sum_{i=1}^m \sum_{l:(k,l) \in A} \lambda_{li} w_{lk} "
            r"\sigma'_k \left( \hat{\psi}_{ki} \right)$ …",
            r"$+ \frac{\partial L_i}{\partial z_{ki}} \sigma'_k(\hat{\psi}_{ki})$ in (20), if $k$ is an output",
        ),
    ),
    "S8": (Quote("in the discussion below I deviate slightly from Ioffe and Szegedy (2015)"),),
    "S9": (
        Quote("5.1 Implicit SGD"),
        Quote("5.1 Implicit SGD"),
        Quote("5.1 Implicit SGD"),
    ),
    "S10": (
        Quote(
            r"$\Delta w_{kj} \leftarrow \alpha \Delta w_{kj} - \eta \frac{\partial L}{\partial w_{kj}}$ … $w "
            r"\leftarrow w + \Delta w$"
        ),
        Quote(
            "For the first mini-batch, we use the updates in (3) and (8).",
            "in (8) and (9)",
        ),
        Quote(
            r"$\Delta w_{kj} \leftarrow \alpha \Delta w_{kj} - \eta \frac{\partial L}{\partial w_{kj}}$",
            r"$\eta$ inside the velocity, so that a new $\eta$ does not rescale it",
        ),
    ),
    "S11": (
        Quote(
            "Starting at terminal node … which suggests the updates: … Proceed recursively with the updates: … "
            "using equation (4) to produce the summands.",
            "with the $w_{lk}$ from before the update",
        ),
    ),
    "S12": (
        Quote(
            r"Clearly if $r_{kj} = 0$ then $\frac{\partial L}{\partial w_{kj}} = 0$ and so $w_{kj}$ is not "
            "updated for this mini-batch."
        ),
    ),
    "S13": (
        Quote(
            r"The parameter updates for $w_{kj}$ and $\beta_k$ remain the same as those in (8) and (9) except "
            r"that now we use (21) to calculate $\lambda_{ki}$."
        ),
    ),
}
