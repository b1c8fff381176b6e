"""TAVAT, token-aware virtual adversarial training: Li and Qiu, AAAI 2021, arXiv:2004.14543."""

import torch
from torch import Tensor
from typing_extensions import Unpack

from lit_adv import processes
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner
from lit_adv.functional import ball, tables
from lit_adv.onset import Options
from lit_adv.ranges import at_least, whole
from lit_adv.recipe import LATER
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
        task: Task = LATER,
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
        # Not the noise's seed, or words would start with the numbers of the first delta_0.
        stream = torch.Generator().manual_seed(~torch.initial_seed() % 2**62)
        rows = torch.ones(task.rows, 1, dtype=torch.bool)
        start = ball.sample(rows, task.width, init_size, generator=stream)
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        # As precise as the words, or a checkpoint in float64 would lose half of it when loaded.
        precise = start.to(torch.promote_types(next(task.parameters()).dtype, torch.float32))
        self.register_buffer("table", ball.project(precise, radius).squeeze(1))  # P
        # Every process writes the same rows: P need not be sent round before each batch.
        self._ddp_params_and_buffers_to_ignore = ["table"]

    @property
    def cost(self) -> Cost:
        return Cost(self.steps, self.steps, self.steps)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if not self.attacks:
            return super().training_step(batch, batch_idx)
        share, mask = 1 / self.steps, self.task.mask(batch)
        start = self.sample(batch, self.init_size, self.radius) / self.strength  # at full size
        delta, eta = self.clip(start, self.rows(batch, mask))  # delta_0; eta_0 = P[x]
        with self.one_batch():
            for _ in range(self.steps - 1):
                both = self.both(delta, eta).requires_grad_()
                losses = self.losses(batch, both)  # L(e + delta_t + eta_t)
                grad = self.accumulate(batch, losses, share, wrt=both)
                delta = ball.ascend(delta, grad, mask, self.step_size)
                eta = ball.ascend(eta, grad, mask, self.step_size, per="token")
                delta, eta = self.clip(delta, rescaled(eta))
            both = self.both(delta, eta)
            losses = self.losses(batch, both)
            self.note("loss/adversarial", losses.mean())
            self.remember(batch, mask, eta)
            self.descend(batch, losses, share=share, delta=both)
        return self.write()  # P[x] <- eta

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._kept = []  # of a training broken off

    def on_train_start(self) -> None:
        super().on_train_start()
        processes.of_first(self.table)

    def rows(self, batch: Batch, mask: Tensor) -> Tensor:
        """`P[x]`, zero where nothing may be perturbed, [batch, tokens, width]."""
        return torch.where(mask.unsqueeze(-1), self.table[self.task.words(batch)], 0)

    def both(self, delta: Tensor, eta: Tensor) -> Tensor:
        """`delta + eta` at this step's strength: what P keeps does not depend on a warm-up."""
        self.expect(max(self.init_size, self.step_size * (self.steps > 1)), self.radius)
        return self.strength * (delta + eta)

    def clip(self, delta: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Both, scaled alike into the ball."""
        length = ball.lengths(delta + eta)
        scale = torch.where(length > self.radius, self.radius / length.clamp(min=1e-30), 1)
        return scale * delta, scale * eta

    def remember(self, batch: Batch, mask: Tensor, eta: Tensor) -> None:
        """Keep the eta of these positions until the end of the effective batch."""
        if not self.again:
            words = self.task.words(batch)
            self._kept.append((words.flatten(), mask.flatten(), eta.detach().flatten(0, 1)))

    @torch.no_grad()
    def write(self) -> None:
        """`P[word] <-` mean of eta over the word's positions, inside the ball of the radius.

        At the end of the effective batch: all its parts and looks, in all processes, have read the
        same P. With several processes the host waits here for the sizes of the others' batches.
        """
        if self.under_way:
            return
        words, real, eta = (
            processes.concatenate(torch.cat(parts)).unsqueeze(0)
            for parts in zip(*self._kept, strict=True)
        )
        self._kept = []
        sums, count = tables.sum_by_word(eta, words, real)
        mean = ball.project(sums / count.unsqueeze(-1), self.radius, per="token")
        mean = torch.where(real.unsqueeze(-1), mean.to(self.table.dtype), self.table[words])
        # Of the positions of one word all write the same; padding writes what a real one does, or
        # it could undo it where its id is a word's too.
        some = real.int().argmax(1)
        words = torch.where(real, words, words.index_select(1, some))
        self.table[words] = torch.where(real.unsqueeze(-1), mean, mean.index_select(1, some))


def rescaled(eta: Tensor) -> Tensor:
    """`eta_i * ||eta_i|| / max_j ||eta_j||` within each example."""
    length = ball.lengths(eta, per="token")
    largest = length.amax(1, keepdim=True)
    return eta * (length / torch.where(largest > 0, largest, 1))
