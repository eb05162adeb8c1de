"""Numbers that a user gives: checked, and turned into Python floats so that equal values hash alike."""

import math


def number(call: str, name: str, value, above: float = -math.inf, least: float = -math.inf) -> float:
    """``value`` as a float, for the argument ``name`` of ``call``: finite, > ``above`` and ≥ ``least``.

    Raises TypeError for what is no number, ValueError for a number outside.

    >>> number("Sigmoid", "beta", 2, above=0)
    2.0
    """
    bounds = "" if above == -math.inf else f" > {above:g}"
    bounds += "" if least == -math.inf else f" >= {least:g}"
    advice = f"write {call}({name}={max(1.0, above, least):g})"
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError("a string is no number")
        result = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name}: expected a number{bounds}, got {value!r}; {advice}") from error
    if not (math.isfinite(result) and result > above and result >= least):
        raise ValueError(f"{name}: expected a finite number{bounds}, got {result}; {advice}")
    return result
