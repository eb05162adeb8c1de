"""The documentation site, of docstrings, README, experiments and notebooks: ``python -m experiments.site``."""
