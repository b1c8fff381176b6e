"""Gradient accordance in a project that is not this one: a callback, and two functions.

python examples/accordance.py
"""

import lightning as L
import torch.nn.functional as F
from adopted_module import Digits
from digits import loaders
from torch import Tensor

from lit_adv.callbacks import GradientAccordance


def losses(module: L.LightningModule, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Of each example."""
    return F.cross_entropy(module.net(batch[0]), batch[1], reduction="none")  # pyright: ignore


def main() -> None:
    """Train; does a step on one batch help the others?"""
    L.seed_everything(0)
    train, _ = loaders()
    watch = GradientAccordance(losses=losses, labels=lambda batch: batch[1], batches=8)
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, callbacks=[watch],
    )  # fmt: skip
    trainer.fit(Digits(), train)
    for name, value in trainer.callback_metrics.items():
        if name.startswith("accordance/"):
            print(f"{name} {float(value):.3f}")


if __name__ == "__main__":
    main()
