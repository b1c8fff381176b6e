"""PenaltyInequality: how far the weights' gradients hold down those of the inputs."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, TypeAlias

import lightning as L
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lit_adv import attention, cuts, processes, regions, sharding, standstill
from lit_adv.callbacks import penalty_inequality_picture
from lit_adv.functional import inequality
from lit_adv.functional.inequality import Terms
from lit_adv.random_state import RandomState
from lit_adv.ranges import at_least, one_of, whole
from lit_adv.tasks.place import Pixels
from lit_adv.tasks.task import Task

Losses: TypeAlias = Callable[[L.LightningModule, Any], Tensor]

FIGURES = ("ratio", "slack", "exchange_rate")


class PenaltyInequality(L.Callback):
    """`||grad_x l||^2 sum_t (1 + ||h_t||^2) / (||W_t||^2 ||dh_t/dx||^2) <= sum_t ||grad_t l||^2`.

    So it is for the loss l of every example and each linear layer `z_t = W_t h_t + b_t` that all of
    its dependence on x goes through (kexue.fm/archives/8796, after arXiv:2111.15090; see
    `functional.inequality`): a small gradient of the weights makes that of the inputs small. How
    small, says the ratio of both sides. Logged are means over the examples:

    * `inequality/LAYER/ratio`: left over right side at one layer, in (0, 1];
    * `inequality/LAYER/slack`: `-log` of it, in nats;
    * `inequality/LAYER/exchange_rate`: `(1 + ||h||^2) / (||W||^2 ||dh/dx||^2)`;
    * `inequality/ratio`, `slack`, `exchange_rate`: of the sums over the layers;
    * `inequality/input_gradient`: `||grad_x l||`, per unit of x.

    An example whose gradient vanishes to the last bit has no ratio and is left out. `||dh/dx||`
    comes from below, by power iteration, and the ratio, by twice as much, from above: it may exceed
    1. At a tolerance of 1e-3, random BERTs of three sizes were 1 to 4 percent off; at 1e-4, for
    twice to thrice the price, at most 0.6 percent.

    Layers that are no cut are refused: with a way around them (residual branches, attention), or
    with a weight that tokens share, whose gradients may cancel out. Of a BERT, pooler and
    classifier remain. Gradients of different examples cancel out too: of a batch's mean loss the
    inequality says nothing.

    It measures at the weights before the step, without autocast: one pass over a few examples and,
    for each layer but one that x enters, 20 to 200 passes backward from there; for a BERT-base of
    64 tokens the time of about ten training steps of 32. Training goes on as if it had not been
    there.

    Args:
        every_n_steps: measure at every n-th optimizer step, from the first one on.
        examples: the first so many of the batch at hand, in each process.
        layers: names of linear layers, or regular expressions of whole names; None = all cuts.
        inputs: name of the module whose first output is x; None = the task's embeddings, or without
            a task the first floating-point tensor that a module is called with.
        mode: `eval`; or `train`, with one dropout mask per measurement.
        tolerance: of `||dh/dx||`: its iteration ends when it rises by a smaller share of itself.
        losses: from module and batch to losses [batch], without side effects; None = the task's.
        picture: whether to draw `penalty_inequality.png` into the trainer's `default_root_dir` when
            training ends.

    Raises:
        ValueError: one of the arguments lies outside its range; when training starts, if losses or
            modules are not there, or the network cannot be differentiated twice; at the first
            measurement, if one of the layers is no cut, or none is.
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        *,
        examples: int = 8,
        layers: str | Sequence[str] | None = None,
        inputs: str | None = None,
        mode: Literal["eval", "train"] = "eval",
        tolerance: float = 1e-3,
        losses: Losses | None = None,
        picture: bool = True,
    ) -> None:
        self.every_n_steps = whole(1, "callbacks: every_n_steps", every_n_steps)
        self.examples = whole(1, "callbacks: examples", examples)
        self.layers = [layers] if isinstance(layers, str) else layers
        self.inputs = inputs
        self.mode = one_of(("eval", "train"), "callbacks: mode", mode)
        self.tolerance = at_least(0.0, "callbacks: tolerance", float(tolerance))
        self.losses = losses
        self.picture = picture
        self.refused: dict[str, str] = {}
        """Linear layers that are no cuts, and why: from the first measurement on."""
        self.series: list[dict[str, float]] = []
        """Per measurement: the step, and what was logged."""
        self._cuts: list[str] | None = None
        self._training = True

    # ---- in training -----------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._training = stage == "fit"
        if self._training:
            self.series, self.refused, self._cuts = [], {}, None  # of a training before this one

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        network = _network(pl_module)
        for key, holds in (
            ("trainer=fsdp2", sharding.dealt_out(network)),
            ("model.compile=true", regions.compiled(network)),
        ):
            if holds:
                raise ValueError(
                    f"{key}: callbacks: PenaltyInequality differentiates twice, which that does "
                    "not allow; leave one of them out"
                )
        if self.losses is None and _task(pl_module) is None:
            raise ValueError(
                f"callbacks: losses=null: {type(pl_module).__name__} has no task of lit_adv; give "
                "a function from module and batch to losses [batch]"
            )
        norms = (m for m in network.modules() if isinstance(m, standstill.BatchNorm))
        if self.mode == "train" and any(norm.training for norm in norms):
            raise ValueError(
                "callbacks: mode=train: through batch norms the loss of an example depends on the "
                "others; set mode=eval"
            )
        self._start(pl_module)
        cuts.linear(network, self.layers)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step, every = trainer.global_step, self.every_n_steps
        last = self.series[-1]["step"] if self.series else -1
        if step // every == last // every:
            return
        means = figures(self.measure(pl_module, batch))
        self.series.append({"step": step, **means})
        trainer.callback_metrics.update({name: torch.tensor(m) for name, m in means.items()})
        # Not by the module's log: it writes at the trainer's own steps only, and forgets.
        for logger in trainer.loggers:
            logger.log_metrics(means, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._draw(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._draw(trainer)

    def _draw(self, trainer: L.Trainer) -> None:
        if self.picture and self.series and trainer.is_global_zero:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            figure = penalty_inequality_picture.draw(self.series)
            figure.savefig(folder / "penalty_inequality.png", dpi=150)

    def state_dict(self) -> dict[str, Any]:
        return {"series": self.series}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._training:  # a checkpoint that is only validated does not take the series back
            self.series = [dict(row) for row in state_dict["series"]]

    # ---- one measurement -------------------------------------------------------------------------

    def measure(self, module: L.LightningModule, batch: Any) -> dict[str, Terms]:
        """The inequality of the first examples of a batch at each cut, by the layers' names.

        Raises:
            ValueError: a layer is no cut, or the losses are not those of single examples.
        """
        network = _network(module)
        names = cuts.linear(network, self.layers) if self._cuts is None else self._cuts
        quiet = standstill.evaluating(module) if self.mode == "eval" else nullcontext()
        now = RandomState(module.device)
        try:
            # Derivatives inside the block too: what is recomputed for them finds all as it was.
            with (
                quiet,
                standstill.still(module.parameters()),
                attention.twice_differentiable(),
                cuts.listening(network, self._start(module), names) as heard,
            ):
                losses = self._losses(module, _first(batch, self.examples))
                names = self._check(network, losses, heard)
                return cuts.terms(network, losses, heard, names, self.tolerance)
        finally:
            now.rewind()

    def _losses(self, module: L.LightningModule, batch: Any) -> Tensor:
        if self.losses is not None:
            return self.losses(module, batch)
        task = _task(module)
        assert task is not None
        return task.losses(task(batch), batch)

    def _start(self, module: L.LightningModule) -> nn.Module | None:
        """The module whose first output is x; None = x is what the first module is called with."""
        if self.inputs is None:
            task = _task(module)
            return None if task is None or isinstance(task.place, Pixels) else task.embeddings
        modules = dict(_network(module).named_modules())
        if self.inputs not in modules:
            some = ", ".join(list(modules)[1:12])
            raise ValueError(
                f"callbacks: inputs={self.inputs}: no such module; there are {some}, ..."
            )
        return modules[self.inputs]

    def _check(self, network: nn.Module, losses: Tensor, heard: cuts.Heard) -> list[str]:
        """Names of the cuts, the same ever after; refuses what the inequality does not hold for."""
        shapes = [x.shape[:1] for x in heard.inputs]
        if losses.ndim != 1 or losses.grad_fn is None or shapes != [losses.shape]:
            sizes = [list(x.shape) for x in (losses, *heard.inputs)]
            raise ValueError(
                f"callbacks: losses={sizes[0]}, inputs={sizes[1:]}: needs losses [batch] that "
                "depend on one floating-point tensor [batch, ...]; look at losses= and inputs="
            )
        refused = cuts.refusals(network, losses, heard)
        asked = self.layers is not None or self._cuts is not None
        if self._cuts is None:
            self.refused = refused
            self._cuts = [name for name in heard.calls if name not in refused]
        if not self._cuts or (asked and refused):
            reasons = [f"{name}: {reason}" for name, reason in refused.items()] or ["none there"]
            more = f"; ... {len(reasons) - 4} more" if len(reasons) > 4 else ""
            raise ValueError(
                f"callbacks: layers={self.layers}: the inequality wants cuts, which these are not: "
                f"{'; '.join(reasons[:4])}{more}"
            )
        return self._cuts


def _task(module: L.LightningModule) -> Task | None:
    task = getattr(module, "task", None)
    return task if isinstance(task, Task) else None


def _network(module: L.LightningModule) -> nn.Module:
    task = _task(module)
    return module if task is None else task.network


def _first(batch: Any, count: int) -> Any:
    """The first examples of a batch: of every tensor that is as long as its first one."""
    sizes: list[int] = []
    apply_to_collection(batch, Tensor, lambda t: sizes.extend(t.shape[:1]))
    return apply_to_collection(
        batch, Tensor, lambda t: t.detach()[:count] if t.shape[:1] == (sizes[0],) else t.detach()
    )


def figures(measured: dict[str, Terms]) -> dict[str, float]:
    """Means over the examples of all processes, by the names in the log; NaN where none has one."""
    whole = inequality.total(list(measured.values()))
    values = {"input_gradient": whole.input_norm}
    for prefix, terms in {"": whole, **{f"{name}/": t for name, t in measured.items()}}.items():
        values |= {f"{prefix}{figure}": getattr(terms, figure) for figure in FIGURES}
    rows = torch.stack(list(values.values()))
    real = rows.isfinite()
    sums, counts = processes.add_up(torch.stack([torch.where(real, rows, 0).sum(1), real.sum(1)]))
    return dict(
        zip((f"inequality/{name}" for name in values), (sums / counts).tolist(), strict=True)
    )
