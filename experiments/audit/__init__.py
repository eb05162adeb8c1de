"""Derivatives that others ship, judged by the checker: ``python -m experiments.audit``."""
