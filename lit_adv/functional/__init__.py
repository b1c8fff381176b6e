"""Tensors in, tensors out: no Trainer, no hidden randomness; usable from anybody's loop."""
