"""Custom derivatives in JAX and other packages, judged by the checker: ``python -m experiments.audit``."""
