"""Grading a hand-in equation by equation: its functions run in their own process and only their numbers are believed.

The process that runs the hand-in knows no verdict: it is asked for values at arguments, and what it sends back are
arrays. They are judged here, in the process of the grader.
"""

from fnn.verify.grading.grades import Grade, grade
from fnn.verify.grading.questions import Question, questions

__all__ = ["Grade", "Question", "grade", "questions"]
