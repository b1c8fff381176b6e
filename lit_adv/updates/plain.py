"""One look, one step."""

from lit_adv.updates.update import Update


class Plain(Update):
    """The optimizer steps along the gradient at the weights as they are."""
