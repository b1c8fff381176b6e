"""Adversarial training and loss flooding for fine-tuning, as PyTorch Lightning modules."""

__version__ = "0.1.0"
