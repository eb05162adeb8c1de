"""exercises: blanks that ``fnn.verify`` grades, and puzzles with one wrong equation, for notebooks and classes."""

from fnn.exercises.forms import MISTAKES, Form
from fnn.exercises.graded import Graded, grade
from fnn.exercises.puzzle import Puzzle, puzzle

__all__ = ["grade", "Graded", "puzzle", "Puzzle", "Form", "MISTAKES"]  # as the site lists them
