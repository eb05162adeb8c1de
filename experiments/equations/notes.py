"""Handwritten notes, *Application: neural networks*."""
