"""Modules whose extra is not installed are not collected for their examples."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("sklearn") else ["fnn/sklearn/estimators.py"]
