"""Cost: what a method computes per batch, counted in passes."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Passes over one batch; a plain fine-tuning step is one of each.

    Attributes:
        forward: forward passes of the network.
        to_inputs: backward passes that carry the gradient towards the embeddings.
        to_weights: of these, those that compute the weights' gradients as well.
    """

    forward: float
    to_inputs: float
    to_weights: float

    @property
    def relative(self) -> float:
        """In units of plain fine-tuning: the three kinds of pass take about the same time.

        >>> Cost(2, 2, 1).relative
        1.6666666666666667
        """
        return sum(self) / 3
