"""Notebooks that show what the documents derive: pairs of text, to read and to review, and of the same with outputs."""
