"""What a step must cost: its ideal passes in units that can be timed by themselves.

A method's `cost` counts F forward passes, I backward passes to the embeddings and W of these that
compute the weights' gradients too. They cannot be timed one by one: a forward pass is as dear as
what it keeps for the backward pass behind it. So they are counted in pairs:

* training pass: a forward pass that keeps all activations, and a full backward pass. There are W.
  The first of each optimizer step leaves its gradients in an empty `.grad` (`fresh`), further ones
  add to it (`adding`), which is a pass over memory that bare PyTorch cannot avoid either.
* `ascent`: forward and backward pass with frozen weights. There are F - W.
* `inner`: a backward pass to the embeddings through the graph of a training pass, which is kept:
  what is left of I. InfoBERT asks for delta's gradient so before each of its K training passes, by
  which it ranks words: 4 K in all.
* `forward`: a pass without a graph and without dropout, where F - W exceeds what is left of I, as
  for proximal=vbpp.

A double backward pass (`double`) goes back through a gradient that is an `inner` pass. It is
two full backward passes (one through the gradient's graph, one through the forward pass's) to a
single forward pass, so one of the W has no forward pass of its own (`backward`). By FLOPs that is
exact: 4.04 forward passes. What PyTorch's second derivatives (of norms, softmax, GELU: many small
operations) take beyond it counts as excess over the floor; a second figure, `as_bare`, has the
double pass as one unit (`double`), forward pass included, timed in bare PyTorch. All passes of such
a method are timed with the attention that it needs, by plain products: fused kernels have no second
derivative.

* `step`: clipping, the optimizer and emptying `.grad`; once, or where a method steps after each of
  its training passes (free_at), W times.
"""

from collections.abc import Mapping
from typing import NamedTuple

from lit_adv.cost import Cost


class Units(NamedTuple):
    """How many there are of each; see the module."""

    fresh: float = 1.0
    adding: float = 0.0
    ascent: float = 0.0
    inner: float = 0.0
    backward: float = 0.0
    forward: float = 0.0
    double: float = 0.0
    step: float = 1.0

    def seconds(self, timed: Mapping[str, float]) -> float:
        """Of the whole step, from the seconds of each unit that there is."""
        return sum(count * timed[unit] for unit, count in self._asdict().items() if count)

    @property
    def cost(self) -> Cost:
        """The passes that they are."""
        training = self.fresh + self.adding
        return Cost(
            training + self.ascent + self.forward + self.double,
            training + self.ascent + self.inner + self.backward + 3 * self.double,
            training + self.backward + 2 * self.double,
        )

    @property
    def as_bare(self) -> "Units":
        """With double backward passes timed as one piece: what bare PyTorch can reach."""
        n = self.backward
        return self._replace(
            fresh=self.fresh - n, inner=self.inner - n, backward=0.0, double=self.double + n
        )

    @property
    def all_fresh(self) -> "Units":
        """As if adding to gradients cost nothing: a stricter floor, which nothing can reach."""
        return self._replace(fresh=self.fresh + self.adding, adding=0.0)


def units(cost: Cost, *, double: bool = False, own_steps: bool = False) -> Units:
    """The units of a method's passes.

    Args:
        cost: passes per batch.
        double: whether one of the backward passes is a double one.
        own_steps: whether the optimizer steps after every training pass.
    """
    backward = float(double)
    training = cost.to_weights - backward
    frozen, inputs = cost.forward - training, cost.to_inputs - cost.to_weights
    ascent = min(frozen, inputs)
    steps = training if own_steps else 1.0
    return Units(
        fresh=steps,
        adding=training - steps,
        ascent=ascent,
        inner=inputs - ascent,
        backward=backward,
        forward=frozen - ascent,
        step=steps,
    )
