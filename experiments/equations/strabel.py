"""Strabel, *The basics of neural networks* (2023)."""
