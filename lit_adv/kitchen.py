"""From checkpoints to a soup that has been tested, with its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from lit_adv import better, checkpoint, results, soup
from lit_adv.checkpoint_io import write
from lit_adv.data.batched import Batched
from lit_adv.finetuner import FineTuner
from lit_adv.models import configured
from lit_adv.models.image_model import ImageModel
from lit_adv.models.model import Model
from lit_adv.quiet import quieten
from lit_adv.run import build, check_metrics, export

LOADING = ("batch_size", "eval_batch_size", "num_workers", "cache", "unlabelled")
"""Keys of `data` that do not change what the validation rows and the vocabulary are."""


@dataclass(kw_only=True)
class Kitchen:
    """All that is needed to test weights: module, data, trainer.

    Args:
        paths: of the checkpoints.
        loaded: what is in them.
        module: built as the first checkpoint's run did.
        model: its network and tokenizer.
        data: of the first checkpoint's run.
        monitor: the validation metric that decides.
    """

    paths: list[Path]
    loaded: list[dict[str, Any]]
    module: FineTuner
    model: Model | ImageModel
    data: Batched[Any]
    monitor: str

    def __post_init__(self) -> None:
        self.trainer = L.Trainer(
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    @classmethod
    def of(cls, paths: list[Path], monitor: str | None = None) -> "Kitchen":
        """Build what the first checkpoint's run had built.

        Raises:
            ValueError: a checkpoint cannot be read, is one of another network or other data, or
                there is no such metric.
        """
        loaded = [checkpoint.load(path) for path in paths]
        check_alike(paths, [each["hyper_parameters"] for each in loaded])
        cfg = DictConfig(loaded[0]["hyper_parameters"])
        if "LoRA" in (cfg.get("peft") or {}).get("_target_", ""):
            raise ValueError(
                f"{paths[0]}: a run with peft=lora: the mean of factors is not that of the weights "
                "they make; average whole networks"
            )
        quieten()
        L.seed_everything(cfg.seed, workers=True, verbose=False)
        data = configured.load(cfg)
        model = configured.build(cfg, data.splits)
        data.adapt(model)
        task = model.task(data.splits)
        cfg.monitor, cfg.optimized_metric = monitor or cfg.monitor or task.monitor, None
        check_metrics(cfg, task)
        return cls(
            paths=paths,
            loaded=loaded,
            module=build(cfg, task),
            model=model,
            data=data,
            monitor=cfg.monitor,
        )

    def cook(self, kind: str, output: Path) -> dict[str, Any]:
        """Make a soup of this kind, test it, write and print what came out."""
        members = [each["state_dict"] for each in self.loaded]
        soup.average(members)  # refuses other models before anything is tested
        if kind == "greedy":
            weights, kept, scores = soup.greedy(members, self.score)
        else:
            scores = [self.score(member) for member in members]
            weights, kept = soup.average(members), list(range(len(members)))

        self.module.load_state_dict(weights)
        outcome = {
            "kind": kind,
            "monitor": self.monitor,
            "members": [
                {"checkpoint": str(path), self.monitor: self.figure(score), "kept": i in kept}
                for i, (path, score) in enumerate(zip(self.paths, scores, strict=True))
            ],
            "val": self.metrics("validate"),
            "test": self.metrics("test"),
        }
        output.mkdir(parents=True, exist_ok=True)
        self.save(weights, output / "soup.ckpt")
        export(self.model, output / "export")
        results.write(output / "soup.json", outcome)
        show(outcome, output)
        return outcome

    def score(self, weights: soup.Weights) -> float:
        """The validation metric under these weights; more is better."""
        self.module.load_state_dict(weights)
        return self.figure(self.metrics("validate")[self.monitor.partition("/")[2]])

    def figure(self, value: float) -> float:
        """A score from a metric, and back."""
        return -value if better.less(self.monitor) else value

    def metrics(self, split: str) -> dict[str, float]:
        """The metrics of the module as it is."""
        (logged,) = getattr(self.trainer, split)(self.module, self.data, verbose=False)
        return {name.partition("/")[2]: value for name, value in logged.items()}

    def save(self, weights: soup.Weights, path: Path) -> None:
        """A checkpoint to test and export from: no optimizer, nothing to resume."""
        kept = ("hyper_parameters", "hparams_name", "pytorch-lightning_version", "lit_adv")
        described = {name: self.loaded[0][name] for name in kept if name in self.loaded[0]}
        progress = {"epoch": 0, "global_step": 0}
        write({**described, **progress, "state_dict": dict(weights)}, path)


def check_alike(paths: list[Path], configs: list[dict[str, Any]]) -> None:
    """Refuse checkpoints of runs on other data, which the shapes of weights do not show.

    Raises:
        ValueError: the line names the first key that differs.
    """
    described = [
        {f"data.{key}": value for key, value in cfg["data"].items() if key not in LOADING}
        | {f"model.{key}": cfg["model"].get(key) for key in ("_target_", "name", "vocabulary")}
        for cfg in configs
    ]
    for path, cfg in zip(paths[1:], described[1:], strict=True):
        for key in described[0] | cfg:
            here, there = described[0].get(key), cfg.get(key)
            if here != there:
                raise ValueError(
                    f"{path}: a run with {key}={there}, the first checkpoint's with {here}; a soup "
                    "needs runs of one model and data"
                )


def show(outcome: dict[str, Any], folder: Path) -> None:
    """Print which members were kept, and what the soup is worth."""
    table = Table(title=f"{outcome['kind']} soup", title_justify="left")
    table.add_column("checkpoint", overflow="fold")
    table.add_column(outcome["monitor"], justify="right")
    table.add_column("kept")
    for member in outcome["members"]:
        figure, kept = member[outcome["monitor"]], "yes" if member["kept"] else "no"
        table.add_row(member["checkpoint"], f"{figure:.4f}", kept)
    name = outcome["monitor"].partition("/")[2]
    table.add_section()
    table.add_row("soup", f"{outcome['val'][name]:.4f}", "")
    console = Console()
    console.print(table)
    console.print(f"test/{name} {outcome['test'][name]:.4f}", highlight=False)
    console.print(f"results in {folder}", highlight=False, soft_wrap=True)
