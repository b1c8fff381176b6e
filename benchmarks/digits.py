"""Do adversarial methods make networks for images robust? PGD-20 on scikit-learn's digits.

    python -m benchmarks.digits --json benchmarks/results/digits.json

Pixels lie in [0, 1]; all perturbations are in L-infinity, of radius 0.2, and stay in the range.
Every run takes 30 epochs (FreeAT: 10, of 3 replays each),
AdamW at 2e-3 falling linearly, batches of 32. The attack takes 20 steps of a quarter of the radius,
from zero and from a random place; an image is lost where any point on the way is misclassified.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from time import perf_counter
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.markdown import spread
from lit_adv import results
from lit_adv.attacks.embedding_pgd import AccuracyUnderPGD, EmbeddingPGD
from lit_adv.data.digits import Digits
from lit_adv.descent import Descent, Schedule, adamw
from lit_adv.finetuner import FineTuner
from lit_adv.methods.fgsm import FGSM
from lit_adv.methods.finetune import FineTune
from lit_adv.methods.free_at import FreeAT
from lit_adv.methods.pgd import PGD
from lit_adv.methods.yopo import YOPO
from lit_adv.models import convolutional, mlp
from lit_adv.quiet import quieten
from lit_adv.standstill import evaluating

RADIUS = 0.2
EPOCHS, REPLAYS = 30, 3
MODELS: dict[str, Callable[..., Any]] = {"mlp": mlp.build, "convolutional": convolutional.build}
BALL: dict[str, Any] = {"radius": RADIUS, "norm": "linf"}
METHODS: dict[str, Callable[..., FineTuner]] = {
    "finetune": FineTune,
    "fgsm": partial(FGSM, radius=RADIUS),
    "pgd": partial(PGD, steps=7, step_size=RADIUS / 4, init_size=RADIUS, **BALL),
    "free_at": partial(FreeAT, replays=REPLAYS, step_size=RADIUS, init_size=RADIUS, **BALL),
    "yopo": partial(YOPO, rounds=3, inner_steps=3, step_size=RADIUS / 4, init_size=RADIUS, **BALL),
}
ATTACK = EmbeddingPGD(radius=RADIUS, step_size=RADIUS / 4, steps=20, norm="linf", restarts=2)


def train(model: str, method: str, seed: int) -> dict[str, float]:
    """Accuracy on the test images, clean and under attack, and the time of training."""
    L.seed_everything(seed, verbose=False)
    data = Digits()
    network = MODELS[model](data.splits)
    data.adapt(network, order_seed=seed)
    descent = Descent(optimizer=partial(adamw, lr=2e-3), schedule=Schedule(name="linear", warmup=0))
    module = METHODS[method](network.task(data.splits), descent)
    trainer = L.Trainer(
        max_epochs=EPOCHS // REPLAYS if method == "free_at" else EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    start = perf_counter()
    trainer.fit(module, datamodule=data)
    seconds = perf_counter() - start
    robust, right = AccuracyUnderPGD(ATTACK), 0
    with evaluating(module.task), torch.no_grad():
        for batch in data.test_dataloader():
            robust.update(module.task, batch)
            right += int((module.task(batch).argmax(1) == batch["labels"]).sum())
    clean = right / len(data.splits.test)
    return {"clean": clean, "robust": float(robust.compute()), "seconds": seconds}


def main() -> None:
    """Run all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    quieten()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for seed in arguments.seeds:  # methods beside each other: a machine's moods are shared
        for model in arguments.models:
            for method in arguments.methods:
                runs = found.setdefault(model, {}).setdefault(method, [])
                runs.append(train(model, method, seed))
    show(found)
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        results.write(arguments.json, {"runs": found, "versions": results.versions()})


def show(found: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    """One row per model and method."""
    table = Table(title=f"digits, L-infinity {RADIUS}", title_justify="left")
    for name in ("model", "method", "clean", "under PGD-20", "time"):
        table.add_column(name, justify="left" if name in ("model", "method") else "right")
    for model, methods in found.items():
        plain = [run["seconds"] for run in methods.get("finetune", [])]
        for method, runs in methods.items():
            times = [run["seconds"] for run in runs]
            ratio = f"{mean(times) / mean(plain):.1f}" if plain else "-"
            row = [spread([run[key] for run in runs], 3) for key in ("clean", "robust")]
            table.add_row(model, method, *row, ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
