"""Trainings as other people write them: a module, a bare loop, Fabric, a Hugging Face Trainer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import new_class
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from testbed import (
    FREE,
    METHODS,
    Stream,
    Tensors,
    bert,
    classify,
    fit,
    sgd,
    weights,
    without_lightnings_own_warnings,
)
from torch import Tensor, nn
from torch.optim import SGD

from lit_adv import adopt
from lit_adv.descent import Descent
from lit_adv.methods.finetune import FineTune
from lit_adv.methods.yopo import YOPO
from lit_adv.recipe import Recipe

LOGITS = "classifier"
"""The module whose output they are."""


def loss_of(network: nn.Module, batch: Tensors) -> Tensor:
    """The mean cross-entropy."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return F.cross_entropy(network(**inputs).logits, batch["labels"])


def losses_of(network: nn.Module, batch: Tensors) -> Tensor:
    """The cross-entropy of every example."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = network(**inputs).logits
    return F.cross_entropy(logits, batch["labels"], reduction="none")


class Theirs(L.LightningModule):
    """A text classifier with automatic optimisation, which knows nothing of this library."""

    def __init__(self, network: nn.Module, rate: float = 0.1) -> None:
        super().__init__()
        self.network = network
        self.rate = rate

    def training_step(self, batch: Tensors, batch_idx: int) -> Any:
        loss = loss_of(self.network, batch)
        self.log("their/loss", loss)
        return loss

    def configure_optimizers(self) -> SGD:
        return SGD(self.parameters(), lr=self.rate)


@dataclass
class Case:
    """A method with its pieces.

    Args:
        name: in the testbed.
        pieces: of the descent; called anew for each training.
        parts: batches of an effective batch.
        dropout: of the network.
        losses: of each example, where their mean is not enough.
    """

    name: str
    pieces: Callable[[], dict[str, Any]] = dict
    parts: int = 1
    dropout: float = 0.0
    losses: Callable[[nn.Module, Tensors], Tensor] | None = None

    @property
    def method(self) -> Any:
        return FREE if self.name == "free_at" else METHODS[self.name]

    @property
    def recipe(self) -> Recipe:
        """The method without its task."""
        if self.name.startswith("yopo"):
            sizes = {"rounds": 2, "inner_steps": 2, "step_size": 0.3, "radius": 0.5}
            form = {"init_size": 0.4, **self.method.keywords}
            split = "network.bert.encoder.layer.0"
            kind, options = YOPO, {**sizes, **form, "split": split}
        elif isinstance(self.method, partial):
            made: Any = self.method.func
            kind, options = made.__bases__[-1], self.method.keywords
        else:
            kind, options = FineTune, {}
        return Recipe(kind, Descent(**self.pieces()), **options)

    @property
    def network(self) -> nn.Module:
        """The same in every training."""
        return bert(dropout=self.dropout)


def by_this_library(case: Case, data: Sequence[Tensors], **options: Any) -> Tensors:
    """The reference: the method as a LightningModule of a task."""
    descent = sgd(accumulate_grad_batches=case.parts, **case.pieces())
    task = classify(case.network)
    torch.manual_seed(0)
    module = case.method(task, descent)
    fit(module, data, **options)
    return weights(module.task.network)


def by_adoption(case: Case, data: Sequence[Tensors], **options: Any) -> Tensors:
    """Their module, adopted, with their own Trainer."""
    theirs, losses = Theirs(case.network), None
    if case.losses is not None:
        losses = partial(case.losses, theirs.network)
    torch.manual_seed(0)
    module = adopt(theirs, case.recipe, logits=f"network.{LOGITS}", losses=losses)
    with without_lightnings_own_warnings():
        trainer = L.Trainer(
            accelerator="cpu",
            accumulate_grad_batches=case.parts,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"max_epochs": 1, "precision": "64-true", **options},
        )
        trainer.fit(module, Stream(data))
    return weights(module.network)


def by_hand(case: Case, data: Sequence[Tensors], fabric: Fabric | None = None) -> Tensors:
    """A loop of their own: bare, or by Fabric."""
    network = case.network
    optimizer = SGD(network.parameters(), lr=0.1)
    torch.manual_seed(0)
    options: dict[str, Any] = {"at": "bert.embeddings.word_embeddings", "logits": LOGITS}
    driven: Any = network
    if fabric is not None:
        driven, optimizer = fabric.setup(network, optimizer)
        options["backward"] = fabric.backward
    recipe = case.recipe
    if "split" in recipe.options:
        recipe.options["split"] = recipe.options["split"].removeprefix("network.")
    method = recipe.on(driven, optimizer=optimizer, accumulate_grad_batches=case.parts, **options)
    torch.manual_seed(0)
    for number, batch in enumerate(data, 1):
        last = True if number == len(data) else None
        method.step(partial(case.losses or loss_of, driven, batch), batch, last=last)
        if number % case.parts == 0 or number == len(data):
            optimizer.step()
            optimizer.zero_grad()
    return weights(network)


@contextmanager
def in_double() -> Iterator[None]:
    """New tensors are float64, as within Lightning's `64-true`."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def by_fabric(case: Case, data: Sequence[Tensors]) -> Tensors:
    """The same with Fabric."""
    return by_hand(case, data, Fabric(accelerator="cpu", precision="64-true"))


def by_huggingface(case: Case, data: Sequence[Tensors], folder: Path) -> Tensors:
    """A Trainer of transformers, whose model computes its loss."""
    from transformers import Trainer, TrainingArguments

    from lit_adv.huggingface import Adversarial

    network = case.network
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=len(data[0]["labels"]),
        gradient_accumulation_steps=case.parts,
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        num_train_epochs=1,
        seed=0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    rows = [
        {name: batch[name][i] for name in batch}
        for batch in data
        for i in range(len(batch["labels"]))
    ]

    seeded: list[torch.Generator] = []

    class InOrder(Trainer):
        def training_step(self, *args: Any, **options: Any) -> Any:
            if not seeded:  # loaders have drawn from dropout's stream
                seeded.append(torch.manual_seed(0))
            return super().training_step(*args, **options)

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            if case.losses is not None:
                return case.losses(model, inputs)
            return super().compute_loss(model, inputs, *args, **options)

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    recipe = case.recipe
    if "split" in recipe.options:
        recipe.options["split"] = recipe.options["split"].removeprefix("network.")
    place = {"at": "bert.embeddings.word_embeddings", "logits": LOGITS}
    trainer = new_class("Mine", (Adversarial, InOrder))(
        model=network,
        args=arguments,
        train_dataset=rows,
        method=recipe,
        adversary=place,
        optimizers=(SGD(network.parameters(), lr=0.1), None),
    )
    trainer.model_accepts_loss_kwargs = False
    torch.manual_seed(0)
    trainer.train()
    return weights(network)
