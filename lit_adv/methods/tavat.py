"""TAVAT, token-aware virtual adversarial training: Li and Qiu, AAAI 2021, arXiv:2004.14543."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball, tables
from lit_adv.onset import Options
from lit_adv.ranges import at_least, whole
from lit_adv.tasks.task import Batch, Task


class TAVAT(FineTuner):
    """`(1/K) sum_{t<K} L(e + delta_t + eta_t)`: FreeLB with a second perturbation that words keep.

    `eta` starts at the row of its word in a table P. With g the gradient at `e + delta + eta`:
    `delta <- delta + step_size * g / ||g||` per example; `eta <- eta + step_size * g / ||g||` per
    token, then `eta_i <- eta_i * ||eta_i|| / max_j ||eta_j||`; then both are scaled so that
    `||delta + eta|| <= radius` per example. At the end P takes the mean of eta over the positions
    of each word. Despite the name the loss is supervised.

    The authors' code (LinyangLee/Token-Aware-VAT e1fe41c) adds to P instead of overwriting it,
    lets padding take part, and normalises P's rows over the whole batch, after which padding or
    the most frequent word owns all of P; it sums gradients over the K passes. Here padding never
    takes part, rows of special tokens are left out with `special_tokens=keep`, no norm couples
    examples, and the passes are averaged.

    Passes per batch: K forward, K backward. P is saved with the weights.

    Args:
        task: the network and its losses; its batches have `input_ids`.
        descent: how the weights descend.
        steps: K, training passes per batch.
        step_size: alpha, length of one ascent per example, and per token.
        radius: epsilon, per example; 0 = no perturbation, inf = unlimited.
        init_size: sigma, of the uniform starts of delta (per example) and of P (per row).
        options: see FineTuner.

    Raises:
        ValueError: one of the arguments lies outside its range.
    """

    table: Tensor

    def __init__(
        self,
        task: Task,
        descent: Descent | None = None,
        *,
        steps: int = 2,
        step_size: float = 0.05,
        radius: float = 0.1,
        init_size: float = 0.05,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(task, descent, **options)
        self.steps = whole(1, "method.steps", steps, "for plain fine-tuning use method=finetune")
        self.step_size = at_least(0, "method.step_size", step_size)
        self.radius = at_least(0, "method.radius", radius)
        self.init_size = at_least(0, "method.init_size", init_size)
        # From a stream of its own: dropout and head are as in any other method.
        stream = torch.Generator().manual_seed(torch.initial_seed() % 2**62)
        rows = torch.ones(task.rows, 1, dtype=torch.bool)
        start = ball.sample(rows, task.width, init_size, generator=stream)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self.register_buffer("table", ball.project(start, radius).squeeze(1))  # P

    @property
    def cost(self) -> Cost:
        return Cost(self.steps, self.steps, self.steps)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        share = 1 / self.steps
        delta = self.sample(batch, self.init_size, self.radius)  # delta_0
        delta, eta = self.clip(delta, self.rows(batch))  # eta_0 = P[x]
        with self.one_batch():
            for _ in range(self.steps - 1):
                both = (delta + eta).requires_grad_()
                losses = self.losses(batch, both)  # L(e + delta_t + eta_t)
                grad = self.accumulate(batch, losses, share, wrt=both)
                delta = self.ascend(batch, delta, grad, self.step_size)
                eta = self.ascend(batch, eta, grad, self.step_size, per="token")
                delta, eta = self.clip(delta, rescaled(eta))
            losses = self.losses(batch, delta + eta)
            self.note("loss/adversarial", losses.mean())
            self.remember(batch, eta)
            self.descend(batch, losses, share=share, delta=delta + eta)
        return self.write()  # P[x] <- eta

    def rows(self, batch: Batch) -> Tensor:
        """`P[x]`, zero where nothing may be perturbed, [batch, tokens, width]."""
        rows = self.table[batch["input_ids"]]
        return torch.where(self.task.mask(batch).unsqueeze(-1), self.strength * rows, 0)

    def clip(self, delta: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Both, scaled alike into the ball."""
        radius, length = self.strength * self.radius, ball.lengths(delta + eta)
        scale = torch.where(length > radius, radius / length.clamp(min=1e-30), 1)
        return scale * delta, scale * eta

    @torch.no_grad()
    def remember(self, batch: Batch, eta: Tensor) -> None:
        """Keep the mean of eta over each word's positions, inside the ball of the radius."""
        if self.again:
            return
        mask, words = self.task.mask(batch), batch["input_ids"]
        sums, count = tables.sum_by_word(eta, words, mask)
        mean = ball.project(sums / count.unsqueeze(-1), self.radius, per="token")
        mean = torch.where(mask.unsqueeze(-1), mean.to(self.table.dtype), self.table[words])
        # Of the positions of one word all write the same; padding writes what a real one does, or
        # it could undo it where its id is a word's too.
        words, mean, real = words.flatten(), mean.flatten(0, 1), mask.flatten()
        some = real.int().argmax()
        words = torch.where(real, words, words[some])
        self._kept.append((words, torch.where(real.unsqueeze(-1), mean, mean[some])))

    def write(self) -> None:
        """At the end of the effective batch: all its looks and parts have read the same P."""
        if not self.under_way:
            for words, rows in self._kept:
                self.table[words] = rows
            self._kept = []


def rescaled(eta: Tensor) -> Tensor:
    """`eta_i * ||eta_i|| / max_j ||eta_j||` within each example."""
    length = ball.lengths(eta, per="token")
    largest = length.amax(1, keepdim=True)
    return eta * (length / torch.where(largest > 0, largest, 1))
