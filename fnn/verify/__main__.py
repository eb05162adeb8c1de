"""``python -m fnn.verify FILE.py`` runs the checks in a file; ``python -m fnn.verify grade FILE.py``, a hand-in."""

import argparse
import json
import math
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from fnn.markup import counted
from fnn.verify.files import Checked, checked, load, printing_elsewhere
from fnn.verify.grading import Grade, grade, questions

CHECK = """\
Run every check in a file, and exit with 1 if one fails, with 2 if there is none or the file cannot be loaded.

A check is
  - a Report at the top level of the file, as REPORT = fnn.verify.network(params, loss=loss);
  - a function named check_... or test_... that needs no arguments. It returns a Report, or several in a list, a tuple
    or a dict; or it raises where it fails, as fnn.verify.network(...).check() and assert do.
"""
GRADE = """\
Give points for every equation of a hand-in, a Python file with functions named like the rules of fnn.Rules:

  output_delta(loss, activation, z, a, y)   hidden_delta(g, activation, z, a)   input_gradient(delta, W, mask=None)
  weight_gradient(delta, a_in, mask=None)   bias_gradient(delta)                (the masks may be left out)

or like the stages of a task. An equation has all of its points or none; what is wrong with it is printed.

TASK.py is yours: chain and x, the arguments of fnn.verify.stages, where the pull-backs are asked for and may be None;
or any of params (a network), loss, and rules (the names of those that are asked for, as ("hidden_delta",)).

THIS RUNS THE HAND-IN'S CODE, with your rights, in a separate process. An exception, the end of the process, no answer
in time and too much memory are 0 points; what it prints is dropped. The process only computes values: they are judged
outside of it, so that it cannot give itself points, except by calling autodiff or fnn's own rules, which you see in its
text. Files, the network and other processes are not protected: grade what you do not trust in a container.
"""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    return _grade(arguments[1:]) if arguments[:1] == ["grade"] else _check(arguments)


def _parser(name: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description, epilog=epilog,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _check(argv: Sequence[str]) -> int:
    parser = _parser("fnn.verify", CHECK, "python -m fnn.verify grade --help: points for a hand-in")
    parser.add_argument("file", metavar="FILE.py", help="or FILE.py:name, module, module:name")
    options = parser.parse_args(argv)
    found: list[Checked] = []
    try:
        with printing_elsewhere(options.json):
            for one in checked(options.file):
                found.append(one)
                if not options.json:
                    print(one, flush=True)
    except (Exception, SystemExit) as error:
        said = "".join(traceback.format_exception_only(error)).strip()
        print(f"{options.file}: it cannot be loaded: {said}", file=sys.stderr)
        return 2
    wrong = sum(not one.ok for one in found)
    if options.json:
        print(json.dumps({"ok": bool(found) and not wrong, "checks": [one.record() for one in found]}, indent=1))
    elif found:
        print(f"{counted(len(found), 'check')}, {f'{wrong} wrong' if wrong else 'all right'}")
    if not found:
        print(f"{options.file}: it has no checks; name a function check_... and return a Report", file=sys.stderr)
    return 2 if not found else int(wrong > 0)


def _grade(argv: Sequence[str]) -> int:
    parser = _parser("fnn.verify grade", GRADE)
    parser.add_argument("file", metavar="FILE.py", type=Path, help="the hand-in")
    parser.add_argument("--points", type=_positive, default=1.0, help="for each equation (default: 1)")
    parser.add_argument("--task", metavar="TASK.py", help="what is asked for (default: five rules of a network)")
    parser.add_argument("--seconds", type=_positive, default=60.0, help="for each equation (default: 60)")
    parser.add_argument("--memory", type=_positive, default=8.0, help="of the hand-in's process, in GiB (default: 8)")
    options = parser.parse_args(argv)
    if not options.file.is_file():
        parser.error(f"{options.file}: there is no such file")
    try:
        with printing_elsewhere(options.json):
            asked = questions(load(options.task) if options.task else None)
    except Exception as error:
        parser.error(f"--task: {type(error).__name__}: {error}")
    grades = grade(options.file, asked, points=options.points, seconds=options.seconds, memory=options.memory)
    points, of = sum(one.points for one in grades), sum(one.of for one in grades)
    if options.json:
        equations = [one._asdict() for one in grades]
        print(json.dumps({"file": str(options.file), "points": points, "of": of, "equations": equations}, indent=1))
    else:
        print("\n".join([*map(_said, grades), f"{points:g} of {of:g} points"]))
    return 0


def _said(one: Grade) -> str:
    wrong = [line for text in one.wrong for line in text.splitlines()]
    return "\n".join([f"{one.points:g} of {one.of:g}  {one.name}", *(f"    {line}" for line in wrong)])


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
