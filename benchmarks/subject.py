"""What is timed: one network of random weights, and one batch."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

from lit_adv import regions
from lit_adv.tasks.classification import Classification

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "vocab_size": 500,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    },
    "minilm": {
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
    },
    "bert_base": {},
}


@dataclass(frozen=True)
class Subject:
    """A network and a batch of full length: time depends on their shapes, not on their values.

    Args:
        task: the network, in training mode and with BERT's dropout of 0.1.
        batch: where the network computes.
        device: where that is.
        precision: `32-true` or `bf16-mixed`.
    """

    task: Classification
    batch: dict[str, Tensor]
    device: torch.device
    precision: str

    @property
    def network(self) -> nn.Module:
        return self.task.network

    def now(self) -> float:
        """Seconds on a clock, when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def autocast(self) -> AbstractContextManager[Any]:
        """What Lightning does around a training step at this precision."""
        mixed = self.precision == "bf16-mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=mixed)

    def losses(self, batch: dict[str, Tensor] | None = None) -> Tensor:
        """Loss of every example in bare PyTorch, [batch]."""
        batch = batch or self.batch
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = self.network(**inputs).logits.float()
        return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")

    def loader(self, count: int) -> DataLoader:
        """The batch, `count` times, from the host."""
        batch = {name: value.cpu() for name, value in self.batch.items()}
        return DataLoader([batch] * count, batch_size=None)  # pyright: ignore[reportArgumentType]

    def trainer(self, epochs: int, *callbacks: L.Callback) -> L.Trainer:
        """Lightning without what is not training: no validation, checkpoints, loggers or bars."""
        return L.Trainer(
            max_epochs=epochs,
            accelerator="gpu" if self.device.type == "cuda" else "cpu",
            devices=1,
            precision=self.precision,  # pyright: ignore[reportArgumentType]
            callbacks=list(callbacks),
            log_every_n_steps=10,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


def build(
    shape: str, batch: int, tokens: int, precision: str = "32-true", compile: bool = False
) -> Subject:
    """A network of this shape and a batch for it, on the accelerator if there is one."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = BertConfig(**SHAPES[shape])  # pyright: ignore[reportArgumentType]
    network = BertForSequenceClassification(config)
    if compile:
        regions.prepare(network, compile=True)
    task = Classification(network, num_labels=2).to(device)
    ids = torch.randint(config.vocab_size, (batch, tokens), device=device)
    labels = torch.randint(2, (batch,), device=device)
    batch_of = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return Subject(task, batch_of, device, precision)
