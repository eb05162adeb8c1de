"""Argument checks by subject; every message says what was expected, what was given, and the corrected call."""
