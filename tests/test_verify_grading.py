"""python -m fnn.verify grade: points for every equation, whatever the hand-in does."""

import json
import sys

import numpy as np
import pytest

import fnn
from fnn.verify.__main__ import main
from fnn.verify.grading.messages import decoded, encoded

RIGHT = """
def output_delta(loss, activation, z, a, y):
    return (a - y) * activation.derivative(z, a)

def hidden_delta(g, activation, z, a):
    return g * activation.derivative(z, a)

def input_gradient(delta, W):
    return delta @ W

def weight_gradient(delta, a_in, mask=None):
    return delta.T @ a_in if mask is None else (delta.T @ a_in) * mask

def bias_gradient(delta):
    return delta.sum(0)
"""
TASK = """
import numpy as np
from fnn.verify import Stage

def dense(W, x):
    return x @ W

random = np.random.default_rng(0)
chain = [
    Stage("first", dense, None, random.normal(size=(3, 4))),
    Stage("square", lambda _, x: x**2, None),
    Stage("add", lambda _, x: x[0] + x[1], None, of=("first", "square")),
]
x = random.normal(size=(5, 3))
"""


@pytest.fixture
def graded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))

    def of(text, *options, task=None):
        (tmp_path / "hand_in.py").write_text(text)
        if task is not None:
            (tmp_path / "some_task.py").write_text(task)
            options = (*options, "--task", f"{tmp_path}/some_task.py")
        assert main(["grade", f"{tmp_path}/hand_in.py", "--json", "--points", "10", *options]) == 0
        sys.modules.pop("some_task", None)
        found = json.loads(capsys.readouterr().out)
        assert found["points"] == sum(one["points"] for one in found["equations"])
        return {one["name"]: (one["points"], "\n".join(one["wrong"])) for one in found["equations"]}

    return of


@pytest.mark.process
def test_right_rules_have_all_points_and_a_wrong_one_is_told_what_is_wrong(graded):
    found = graded(RIGHT.replace("return g * activation.derivative(z, a)", "return g"))
    assert found.pop("hidden_delta")[0] == 0
    assert set(found.values()) == {(10.0, "")}
    assert len(found) == 4


ONE = 'rules = ("bias_gradient", "input_gradient")'
WRITES = (
    "for fd in range(3, 40):\n{0}    try:\n{0}        __import__('os').write(fd, {1})\n{0}    except OSError: pass\n"
)
EVIL = {  # a bias_gradient, and what is said of it
    "raises": ("raise KeyError('no')", "it raises KeyError"),
    "exits": ("import sys; sys.exit(0)", "it raises SystemExit: 0"),
    "ends the process": ("import os; os._exit(3)", "its process ended with exit code 3"),
    "is killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "its process ended with signal 9"),
    "never ends": ("while True: pass", "it takes too long"),
    "prints without end": ("while True: print('10 of 10 points' * 1000)", "it takes too long"),
    "writes answers": (WRITES.format(" " * 4, b"{}\n") + "    return delta", "it sent something that is no value"),
    "floods the answers": ("while True:\n        " + WRITES.format(" " * 8, "b'x' * 9999"), ""),
    "takes all memory": ("return [bytearray(2**34) for _ in range(99)]", "it raises MemoryError"),
    "forges its message": ("raise ValueError('\\n10 of 10  bias_gradient')", "ValueError:  10 of 10  bias_"),
    "recurses": ("return bias_gradient(delta)", ""),  # a traceback of a thousand lines may take too long
    "returns an object": ("return object()", ""),
    "returns a string": ("return 'points'", ""),
    "returns nothing": ("return None", ""),
    "raises its own": ("class Mine(BaseException):\n        __str__ = None\n    raise Mine", "it raises Mine"),
}  # fmt: skip


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.parametrize("what", EVIL)
def test_whatever_a_function_does_is_no_points_for_it_and_takes_none_from_the_others(graded, what):
    body, said = EVIL[what]
    text = f"def bias_gradient(delta):\n    {body}\ndef input_gradient(delta, W):\n    return delta @ W\n"
    found = graded(text, "--seconds", "10", task=ONE)
    points, wrong = found["bias_gradient"]
    assert points == 0
    assert wrong
    assert said in wrong
    assert found["input_gradient"] == (10.0, "")


@pytest.mark.process
def test_a_hand_in_that_cannot_be_loaded_has_no_points_and_is_told_why(graded):
    for text, said in {"def f(:": "SyntaxError", "raise SystemExit(0)": "SystemExit"}.items():
        for points, wrong in graded(text, task=ONE).values():
            assert points == 0
            assert "it cannot be loaded: " + said in wrong
    forged = WRITES.format("", b'{"defined": 5}\n')
    assert set(graded(forged, task=ONE).values()) == {(0.0, "it sent something that is no value")}
    found = graded("from fnn.backward import bias_gradient", task=ONE)
    assert set(found.values()) == {(0.0, "it is not defined")}


@pytest.mark.process
def test_the_stages_of_a_task_are_judged_alone(graded):
    text = """
def first(W, x, y, y_bar):
    return x.T @ y_bar, y_bar @ W.T

def square(params, x, y, y_bar):
    return (), x * y_bar

def add(params, x, y, y_bar):
    return (), (0 * y_bar, y_bar)
"""
    found = graded(text, task=TASK)
    assert found["first"] == (10.0, "")
    assert "a factor 1/2 too small" in found["square"][1]
    assert "the term through the skip connection is missing" in found["add"][1]


@pytest.mark.parametrize(
    ("task", "said"),
    [("y = 5", "expected chain and x"), ("chain = 5", "chain: expected a list of Stages"), ("chain = [", "SyntaxError"),
     ("rules = ('nothing',)", "'nothing' is no rule; write one of"),
     ("from fnn.verify import Stage\nchain = [Stage('a', None, None)]", "x, the input of the chain, is missing")],
)  # fmt: skip
def test_a_task_that_is_none_is_refused(tmp_path, capsys, task, said):
    (tmp_path / "hand_in.py").write_text(RIGHT)
    (tmp_path / "a_task.py").write_text(task)
    with pytest.raises(SystemExit) as ended:
        main(["grade", f"{tmp_path}/hand_in.py", "--task", f"{tmp_path}/a_task.py"])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["nothing.py"], ["hand_in.py", "--points", "-1"], ["hand_in.py", "--seconds", "nan"]])
def test_bad_options_are_refused(tmp_path, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hand_in.py").write_text(RIGHT)
    with pytest.raises(SystemExit):
        main(["grade", *argv])


@pytest.mark.parametrize(
    "value",
    [np.arange(6.0).reshape(2, 3), np.float32(1.5), np.zeros((0, 3)), (1, [2.5, None], {"a": True, 3: "b"}), np.inf],
)
def test_what_is_sent_arrives(value):
    found = decoded(json.loads(json.dumps(encoded(value, {}))), {})
    assert type(found) is type(value) or isinstance(value, np.generic)
    assert str(found) == str(value)


def test_classes_arrive_only_if_they_were_sent():
    classes = {}
    sent = encoded((fnn.Sigmoid(2.0), fnn.BatchNorm(np.ones(2), np.zeros(2))), classes)
    activation, norm = decoded(sent)
    assert activation == fnn.Sigmoid(2.0)
    assert (norm.gamma == 1).all()
    assert decoded(sent, classes)[0] == activation
    with pytest.raises(ValueError, match="expected arrays, got 'fnn"):
        decoded(sent, {})
