"""Processes that train together agree on everything before the first step, and on every epoch; they end together."""

import pytest

from agreement_cases import cases
from test_parallel import TESTS, Job

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def lines():
    """What every process of two says to each case of agreement_cases.py, by its name."""
    with Job(lambda *given: [TESTS / "agreement_cases.py", *given], 2) as job:
        assert job.statuses(300) == [0, 0], job.said()
        return [dict(line.strip().split(": ", 1) for line in lines if ": " in line) for lines in job.lines]


@pytest.mark.parametrize("name", cases())
def test_what_one_process_has_otherwise_is_refused_by_its_name_in_all(name, lines):
    begins = cases()[name][2]
    assert [of_one[name].startswith(begins) for of_one in lines] == [True, True], [of_one[name] for of_one in lines]
    if begins != "trained":
        assert lines[0][name] == lines[1][name]
        assert "expected the same in every process, got " in lines[0][name]
        assert " in process 0 and " in lines[0][name]


def test_parameters_that_have_become_others_are_noticed_at_the_end_of_the_epoch(lines):
    assert "params: expected the same in every process, got " in lines[0]["diverged"]
    assert f"{'0' * 64} in process 1, at the end of epoch 1; " in lines[1]["diverged"]
