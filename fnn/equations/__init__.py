"""The derivation as data: every line with its number, formula, rule and sources, and functions that compute them.

``fnn.verify`` compares these lines with automatic differentiation, ``fnn.train.NonFinite`` names the first that is not
finite, and ``fnn.explain`` prints them.

The sources are five documents on neural networks and back-propagation; a letter and a number name a printed equation:

    H  Hedges, A brief introduction to neural networks and back propagation (2022)
    L  Lopez Davila, Neural networks: the backpropagation algorithm (2020)
    S  Strabel, The basics of neural networks (2023)
    B  Bhaip, Neural networks III: backpropagation (2021)
    N  handwritten notes, Application: neural networks

``python -m experiments.equations`` runs each of them as printed and says which are errata.
"""

from fnn.equations.layers import EQUATIONS as EQUATIONS
from fnn.equations.layers import Equation as Equation
from fnn.equations.walk import Line as Line
from fnn.equations.walk import change_lines as change_lines
from fnn.equations.walk import graph_lines as graph_lines
from fnn.equations.walk import lines as lines
