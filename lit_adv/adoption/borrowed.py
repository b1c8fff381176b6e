"""Borrowed: the network and the loss of somebody else's training, as a task."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn
from torchmetrics import MetricCollection

from lit_adv import layers, standstill
from lit_adv.adoption.place import Place
from lit_adv.functional import divergence
from lit_adv.random_state import RandomState
from lit_adv.tasks.place import table_size
from lit_adv.tasks.task import Batch, Task

Loss: TypeAlias = Callable[[Any], Tensor]
"""From a batch, which may be perturbed, to its loss: one number or [batch]."""


class Borrowed(Task):
    """Passes over a batch are calls of somebody's own function, whose answers are losses.

    A mean over examples stands for each of them: the sum over a batch of B examples is B times the
    mean, and its gradient with respect to one example's perturbation is that of this example's own
    loss. Methods that compare answers need `logits` beside it; their losses are then found by the
    identity of the answer they came with.

    Args:
        network: whose weights train.
        place: what is perturbed.
        logits: name of the module whose output they are, which costs no pass; or a function from
            a batch to logits, which is another pass at every training pass; None = there are none.
        distance: from two such answers to how far they lie apart, [batch], symmetric; None = by
            symmetric KL of classes, [batch, classes], or the squared difference of numbers.
    """

    monitor = ""

    def __init__(
        self,
        network: nn.Module,
        place: Place,
        logits: str | Callable[[Any], Tensor] | None = None,
        distance: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.network = network
        self.calls: list[tuple[Any, Loss]] = []
        """The function for each batch of the effective batch, which may be looked at again."""
        self.examples: int | None = None
        """How many each batch counts as; None = as many as it has."""
        self.separate = ""
        """What needs the loss of each example, by name; else their mean will do."""
        self._place = (place,)  # in a tuple: its module is the network's
        self.logits = logits
        self._distance = distance
        self.forget()

    @property
    def place(self) -> Place:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What is perturbed."""
        return self._place[0]

    @property
    def embeddings(self) -> nn.Module:
        return self.place.module

    @property
    def width(self) -> int:
        return self.place.width

    @property
    def rows(self) -> int:
        return table_size(self.embeddings, f"at={self.place.at}")[0]

    def mask(self, batch: Batch) -> Tensor:
        return self.place.mask(batch, self.forward)

    def words(self, batch: Batch) -> Tensor:
        return self.place.words(batch, self.forward)

    def within(self, batch: Batch, delta: Tensor) -> Tensor:
        return self.place.within(batch, delta)

    def forget(self) -> None:
        """Forget the answers of the batch before: their graphs go with them."""
        self._answers: list[tuple[Tensor, Callable[[], Tensor]]] = []
        self._searching = False  # whether the last answer only looked for a perturbation

    def answer(self, batch: Batch, delta: Tensor | None = None, relative: bool = False) -> Tensor:
        if self.logits is None:
            return self._losses(batch, delta, relative)
        if isinstance(self.logits, str):
            with layers.captured(self.network.get_submodule(self.logits)) as outputs:
                losses = self._losses(batch, delta, relative)
            logits, find = _tensor(outputs, self.logits), lambda: losses
        else:
            before = RandomState(self.place.device)
            with self.place.perturbed(batch, delta, relative) as perturbed:
                logits = self.logits(perturbed)

            def find() -> Tensor:  # the same dropout masks, as far as both draw them in one order
                after = RandomState(self.place.device)
                before.rewind()
                losses = self._losses(batch, delta, relative)
                after.rewind()
                return losses

        if self._searching:  # its answer was asked for at once, or never will be
            self._answers.pop()
        self._searching = standstill.is_frozen(self.network)
        self._answers.append((logits, find))
        return logits

    def forward(self, batch: Batch) -> Tensor:
        return self.answer(batch)

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.logits is None:
            return logits
        for known, find in self._answers:
            if known is logits:
                found = find()
                return found.expand(len(logits)) if len(found) == 1 else found
        raise RuntimeError("losses of logits that are no answer to this batch")

    def _losses(self, batch: Batch, delta: Tensor | None, relative: bool) -> Tensor:
        """Of every example, [batch]: each has a mean's value."""
        with self.place.perturbed(batch, delta, relative) as perturbed:
            loss = next(call for known, call in self.calls if known is batch)(perturbed)
        if loss.ndim == 1 and len(loss) > 1:
            return loss
        if self.separate:
            raise ValueError(
                f"{self.separate}: goes by the loss of each example, and was given their mean; "
                "give a loss of each: losses= of adopt, or [batch] from the function of `step`"
            )
        return loss.reshape(1).expand(self.examples or self.place.examples(batch))

    def divergence(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        if self._distance is not None:
            return self._distance(p, q)
        return _either(divergence.symmetric_kl, p, q)

    def towards(self, p: Tensor, q: Tensor, batch: Batch) -> Tensor:
        if self._distance is not None:
            return self._distance(p, q.detach())
        return _either(lambda p, q: divergence.kl(q, p), p, q.detach())

    def metrics(self) -> MetricCollection:
        return MetricCollection({})

    @property
    def chance_loss(self) -> None:
        return None


def _either(kl: Callable[[Tensor, Tensor], Tensor], p: Tensor, q: Tensor) -> Tensor:
    if p.ndim == 2 and p.shape[1] > 1:
        return kl(p, q)
    if p.ndim == 1 or p.ndim == 2:
        return divergence.squared(p.reshape(len(p)), q.reshape(len(q)))
    raise ValueError(
        f"logits: of shape {list(p.shape)}; how far two such answers lie apart is yours to say: "
        "distance=, from two of them to [batch]"
    )


def _tensor(outputs: list[Any], name: str) -> Tensor:
    if not outputs or not isinstance(outputs[-1], Tensor):
        raise ValueError(f"logits={name}: this module answered no tensor in a training step")
    return outputs[-1]
