"""What the documents print, word for word: for every finding of a row, in the row's order, the sentence it is about.

Formulas are in the documents' own LaTeX; … stands for what is left out. Beside a sentence that is not right as printed
stands how it should read.
"""

from experiments.equations.quotes import bhaip, hedges, lopez_davila, notes, strabel
from experiments.equations.register import Quote

QUOTES: dict[str, tuple[Quote, ...]] = {
    **hedges.QUOTES,
    **lopez_davila.QUOTES,
    **strabel.QUOTES,
    **bhaip.QUOTES,
    **notes.QUOTES,
}
