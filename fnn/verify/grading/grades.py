"""Points for every equation of a hand-in."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fnn.verify.grading.process import Ended, HandIn
from fnn.verify.grading.questions import Question

SHOWN = 1  # finding for each equation; the others are of the same function


class Grade(NamedTuple):
    """The points for one equation, and what is wrong with it: a line for each finding, or the reason for none."""

    name: str
    points: float
    of: float
    wrong: tuple[str, ...] = ()


def grade(file: Path, asked: Sequence[Question], *, points: float, seconds: float, memory: float) -> list[Grade]:
    """All points for a right equation, 0 for a wrong one and for one that raises, ends its process or takes too long.

    file: the hand-in, which is run in a separate process, and in a new one after it has ended the first; points:
    for each equation; seconds: for each, and for loading; memory: of the process, in GiB.
    """
    grades: list[Grade] = []
    hand_in: HandIn | None = None
    try:
        for question in asked:
            if hand_in is None:
                hand_in = HandIn(file, seconds, memory)
            hand_in.left = seconds
            try:
                wrong = _wrong(question, hand_in)
            except Ended as ended:
                wrong = (str(ended),)
                hand_in.close()
                hand_in = None
            grades.append(Grade(question.name, 0.0 if wrong else points, points, wrong))
    except Ended as ended:  # it cannot be loaded
        grades += [Grade(question.name, 0.0, points, (str(ended),)) for question in asked[len(grades) :]]
    finally:
        if hand_in is not None:
            hand_in.close()
    return grades


def _wrong(question: Question, hand_in: HandIn) -> tuple[str, ...]:
    if question.name not in hand_in.defined:
        return ("it is not defined",)

    def function(*args):
        return hand_in.ask(question.name, *args)

    try:
        report = question.judge(function, hand_in.defined[question.name])
    except Exception as error:  # whatever a check makes of what a hand-in returns
        return (f"{type(error).__name__}: {error}",)
    if report.ok:
        return ()
    shown = [finding.explanation().strip() for finding in report.wrong[:SHOWN]]
    more = len(report.wrong) - len(shown)
    return (*shown, *([f"and {more} more"] if more else [])) or (report.verdict(),)
