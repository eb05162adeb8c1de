"""Bhaip, *Neural networks III: backpropagation* (2021)."""
