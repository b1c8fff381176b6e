"""Gradient accordance while training: which batches, which gradients, what comes of them."""
