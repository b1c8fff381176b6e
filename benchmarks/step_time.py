"""Time per optimizer step of every method, relative to plain fine-tuning.

    python -m benchmarks.step_time --rounds 5

One process, one network, the same batches; the methods take turns, so that a drift of the machine's
speed falls on all alike. The median of each round's steps is compared with plain fine-tuning's of
the same round; the median ratio over the rounds is printed, with the smallest and the largest.
"""

import argparse
import json
import logging
import time
import warnings
from copy import deepcopy
from statistics import median
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

from lit_adv import catalogue, config
from lit_adv.run import build
from lit_adv.tasks.classification import Classification

# Beside every method, what happens between the gradient and the step: passes relative to plain.
PIECES = {
    "flood=fixed": 1.0,
    "mask=child_f": 1.0,
    "update=sam": 2.0,
    "update=gradient_penalty": 2.0,
}


def runs() -> dict[str, list[str]]:
    """Overrides of every run, by its name in the table."""
    methods = {f"method={method.name}": [f"method={method.name}"] for method in catalogue.methods()}
    return {**methods, **{piece: [piece] for piece in PIECES}}


class Steps(L.Callback):
    """Seconds of every training batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since = 0.0

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._since = _now()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.seconds.append(_now() - self._since)


def steps(module: L.LightningModule, data: DataLoader) -> list[float]:
    """Seconds per step, the first one left out."""
    clock = Steps()
    trainer = L.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(module, data)
    return clock.seconds[1:]


def network() -> BertForSequenceClassification:
    """Random weights in the shape of MiniLM-L6: time does not depend on their values."""
    return BertForSequenceClassification(
        BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
    )


def measure(rounds: int, batch: int, tokens: int, count: int) -> dict[str, dict[str, float]]:
    """Ratios to plain fine-tuning, by run."""
    torch.manual_seed(0)
    task = Classification(network(), num_labels=2)
    ids = torch.randint(1000, 30000, (count + 1, batch, tokens))
    made = [
        {
            "input_ids": row,
            "attention_mask": torch.ones_like(row),
            "labels": torch.randint(0, 2, (batch,)),
        }
        for row in ids
    ]
    data = DataLoader(made, batch_size=None)  # pyright: ignore[reportArgumentType]
    overrides = runs()
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        cfgs = {n: compose("train", [*o, "output_dir=."]) for n, o in overrides.items()}
    taken: dict[str, list[float]] = {name: [] for name in cfgs}
    passes = {name: build(cfg, deepcopy(task)).cost.relative for name, cfg in cfgs.items()}
    passes |= PIECES
    for _ in range(rounds):
        for name, cfg in cfgs.items():
            taken[name].append(median(steps(build(cfg, deepcopy(task)), data)))
    outcome = {}
    for name, seconds in taken.items():
        ratios = [a / b for a, b in zip(seconds, taken["method=finetune"], strict=True)]
        outcome[name] = {
            "passes": passes[name],
            "ratio": median(ratios),
            "smallest": min(ratios),
            "largest": max(ratios),
            "seconds": median(seconds),
        }
    return outcome


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3, help="timed steps per round")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    outcome = measure(arguments.rounds, arguments.batch, arguments.tokens, arguments.steps)
    if arguments.json:
        print(json.dumps(outcome, indent=2))
        return
    print("| run | passes / plain | time / plain | smallest - largest |\n|---|---:|---:|---:|")
    for name, row in outcome.items():
        spread = f"{row['smallest']:.2f} - {row['largest']:.2f}"
        print(f"| `{name}` | {row['passes']:.2f} | {row['ratio']:.2f} | {spread} |")


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
