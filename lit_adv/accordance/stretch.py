"""Stretch: the training between two readings of gradient accordance."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from lit_adv import class_gradients, processes
from lit_adv.accordance.against import Against
from lit_adv.accordance.kept import Kept
from lit_adv.accordance.over_processes import over_processes
from lit_adv.accordance.probe import Probe
from lit_adv.functional.accordance import Accordance
from lit_adv.functional.precision import at_least_float32
from lit_adv.nested import on_device, on_host, size

MEANS = ("cross", "same", "all", "within")


class Stretch:
    """Notes batches, or their gradients, while they are trained on; measures them at its end.

    Args:
        wanted: batches to look at, or a share of them.
        length: batches to come.
        accordance: empty.
    """

    def __init__(self, wanted: int | float, length: float, accordance: Accordance) -> None:
        self.accordance = accordance
        self._wanted = wanted
        self._kept = Kept(wanted, length)
        self._batches: deque[Any] = deque(maxlen=self._kept.count)
        self._seen: dict[int, list[Tensor]] = {}  # gradients of the batch at hand

    @property
    def begun(self) -> bool:
        """Whether there was a batch."""
        return self._kept.position > 0

    @property
    def wants_next(self) -> bool:
        """Whether the batch at hand is chosen."""
        return self._kept.wants_next

    # ---- while training --------------------------------------------------------------------------

    def observe(self, probe: Probe, batch: Any, losses: Tensor, share: float) -> None:
        """Class gradients of a training pass over a chosen batch, before it is descended."""
        rows = class_gradients.examples_of(probe.labels(batch), len(losses))
        for label, mine in rows.items():
            loss = share * losses[mine].mean()
            gradient = class_gradients.gradient(loss, probe.weights, probe.scale, keep_graph=True)
            if label not in self._seen:
                self._seen[label] = gradient
                continue
            for part, more in zip(self._seen[label], gradient, strict=True):
                part.add_(more)

    def passed(self, batch: Any, *, moving: bool) -> None:
        """A batch has been trained on."""
        self._kept.offer(self._seen if moving else batch)
        self._seen = {}

    def stepped(self, *, moving: bool) -> None:
        """The effective batch is whole, and nothing of it will come again."""
        for chosen in self._kept.close():
            if moving:
                self.accordance.update(chosen)
            else:
                self._batches.append(chosen)

    # ---- at its end ------------------------------------------------------------------------------

    def pass_again(self, probe: Probe) -> None:
        """Accordance of the batches noted, at the weights as they are."""
        for batch in self._batches:
            self.accordance.update(probe.classes(batch))

    def pass_against(self, probe: Probe, held_out: list[Any], *, classes: bool) -> Against:
        """Accordance of the batches noted with held-out ones, and among their classes if wanted."""
        against = Against(probe, held_out, self.accordance.normalize)
        for batch in self._batches:
            if classes:
                whole: list[Tensor] = []
                shares = self._shares(probe, batch)
                self.accordance.update(_adding_up(probe.classes(batch), shares, whole))
            else:
                whole = probe.whole(batch)
            against.update(whole)
        return against

    def means(self, probe: Probe) -> tuple[dict[str, float], dict[str, float]]:
        """Means over the pairs of all processes, and their standard errors."""
        if not probe.joint:
            over_processes(self.accordance, probe.weights[0].device)
        outcome = self.accordance.compute()
        return {name: outcome[name] for name in MEANS}, outcome["standard_error"]

    def _shares(self, probe: Probe, batch: Any) -> Callable[[int], float]:
        rows, every = probe.rows(batch), probe.examples(size(batch))
        return lambda label: probe.examples(len(rows.get(label, []))) / every

    # ---- checkpoints -----------------------------------------------------------------------------

    def state_dict(self, device: torch.device) -> dict[str, Any]:
        """What all processes have noted: batches of each, and the sum of their accordances."""
        summed = Accordance(self.accordance.normalize)
        summed.merge(self.accordance)
        over_processes(summed, device)
        return {
            "position": self._kept.position,
            "length": self._kept.length,
            "batches": processes.gather(on_host(list(self._batches))),
            "accordance": on_host(summed.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from there, in as many processes; in others there is nothing yet."""
        if len(state["batches"]) == processes.count():
            self._kept = Kept(self._wanted, state["length"])
            self._kept.position = state["position"]
            self._batches = deque(maxlen=self._kept.count)
            self._batches.extend(on_device(state["batches"][processes.rank()], device))
            if processes.rank() == 0:  # the sum of all
                self.accordance.load_state_dict(on_device(state["accordance"], device))


def _adding_up(
    classes: Iterable[tuple[int, list[Tensor]]],
    share: Callable[[int], float],
    whole: list[Tensor],
) -> Iterator[tuple[int, list[Tensor]]]:
    """Hands on class gradients, and leaves that of their batch: `sum_c n_c / n g_c`."""
    for label, gradient in classes:
        if not whole:
            whole.extend(torch.zeros_like(at_least_float32(part)) for part in gradient)
        for part, more in zip(whole, gradient, strict=True):
            part.add_(more, alpha=share(label))
        yield label, gradient
