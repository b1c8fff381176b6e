"""Sweeps: which runs, where each one works, what goes on after an end, and what is told of it."""
