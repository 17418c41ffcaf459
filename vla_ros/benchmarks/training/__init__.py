"""Benchmark of training: what the loop and its data cost, and what the result costs at work."""
