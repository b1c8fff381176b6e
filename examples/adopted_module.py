"""A LightningModule that exists, trained by PGD on its images: one line is new.

python examples/adopted_module.py
"""

import lightning as L
import torch
import torch.nn.functional as F
from digits import loaders
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

import lit_adv


class Digits(L.LightningModule):
    """A small convolutional net, as anybody writes it."""

    def __init__(self, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(512, 10),
        )  # fmt: skip
        self.accuracy = MulticlassAccuracy(10)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self.net(images), labels)
        self.log("train/loss", loss)
        return loss

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.accuracy(self.net(images), labels)
        self.log("test/accuracy", self.accuracy)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams["lr"], momentum=0.9)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}


def main() -> None:
    """Train and test."""
    L.seed_everything(0)
    train, test = loaders()
    module = Digits()
    lit_adv.adopt(module, "pgd", at="input", radius=1.0, step_size=0.5, init_size=0.5)
    trainer = L.Trainer(
        max_epochs=3, gradient_clip_val=1.0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, train)
    trainer.test(module, test)


if __name__ == "__main__":
    main()
