"""Benchmarks: ours and its peers in one process, interleaved, medians of the rounds' ratios."""
