"""A Task is all that a method knows of a network: logits, losses, divergence, place to perturb."""
