"""Lopez Davila, *Neural networks: the backpropagation algorithm* (2020)."""
