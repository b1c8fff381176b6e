"""One run: compose the parts, train, test the best checkpoint, write the run's folder."""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from lit_adv import (
    auxiliary,
    checkpoint,
    config,
    curves,
    failure,
    logged,
    ranks,
    results,
    sharding,
    trainers,
)
from lit_adv.attacks import attack as attacks
from lit_adv.callbacks import pruning
from lit_adv.callbacks.stopwatch import Stopwatch
from lit_adv.data.batched import Batched
from lit_adv.descent import PLATEAU, Descent
from lit_adv.finetuner import FineTuner
from lit_adv.flood.ada import Ada
from lit_adv.methods.finetune import FineTune
from lit_adv.models import configured
from lit_adv.models.image_model import ImageModel
from lit_adv.models.model import Model
from lit_adv.quiet import quieten
from lit_adv.ranges import whole
from lit_adv.sweeps.trial import Pruned
from lit_adv.tasks.task import Task


def run(cfg: DictConfig) -> float | None:
    """Train and test what a composed configuration describes; returns what a sweep optimises.

    Raises:
        SystemExit: SIGTERM came; a checkpoint to go on from has been written.
    """
    folder = Path(cfg.output_dir)
    folder.mkdir(parents=True, exist_ok=True)  # Hydra's own is there, one that is set may not be
    first = getattr(rank_zero_only, "rank", 0) == 0
    with failure.recorded(folder) if first else nullcontext():
        config.check(cfg)
        quieten()
        if first:
            OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
        with ranks.launched(folder / "config.yaml") as launchers:
            return train(cfg, folder, launchers)


def train(cfg: DictConfig, folder: Path, launchers: list[L.Trainer]) -> float | None:
    """The run itself, in each of its processes; notes the trainer that starts the others."""
    L.seed_everything(whole(0, "seed", cfg.seed), workers=True, verbose=False)
    data = configured.load(cfg)
    model = configured.build(cfg, data.splits)
    data.adapt(model, order_seed=cfg.seed)
    task = model.task(data.splits)
    check_metrics(cfg, task)
    if cfg.attack.recipes:
        attacks.check(cfg.attack, data)
    module = build(cfg, task)
    if cfg.ckpt_path is not None:
        checkpoint.check(cfg.ckpt_path, module)
    unlabelled = getattr(data, "unlabelled", None)
    if unlabelled is not None and not module.unlabelled:
        name = type(module).__name__
        raise ValueError(f"data.unlabelled={unlabelled}: {name} uses no unlabelled texts")
    monitor = cfg.monitor or task.monitor
    best, *last = trainers.keepers(monitor, folder, cfg.checkpoint)
    stopwatch = Stopwatch()
    trainer = trainers.build(cfg, [best, *last, stopwatch, *pruning.asked(folder, monitor)], folder)
    launchers.append(trainer)
    if cfg.ckpt_path is not None:
        logged.go_on(trainer, cfg.ckpt_path)
    if isinstance(module.descent.flood, Ada):  # last: it takes longer than the training itself
        if cfg.ckpt_path is None:
            auxiliary.prepare(module.descent.flood, data, cfg, folder, lambda: plain(cfg, data))
        else:
            auxiliary.check(cfg.ckpt_path, data)
    kept = folder / "checkpoints" / "last.ckpt"
    try:
        trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path)
    except FloatingPointError as error:
        remedy = f"the last good checkpoint is {kept}" if kept.exists() else "no checkpoint yet"
        raise FloatingPointError(f"{error}; {remedy}") from error
    except Pruned:
        if not trainer.is_global_zero:
            sys.exit(0)  # as on SIGTERM
        raise
    except SIGTERMException:
        if trainer.is_global_zero:
            step = trainer.global_step
            print(f"stopped by SIGTERM at step {step}; to go on: ckpt_path={kept}", file=sys.stderr)
            sys.exit(128 + signal.SIGTERM)
        sys.exit(0)  # or Lightning would kill the first process before it has written all
    finally:
        if trainer.is_global_zero and (folder / "metrics.csv").exists():
            title = results.title(describe(cfg))
            flood = module.descent.flood.outcome()
            level, since = flood.get("b"), flood.get("step") or 0
            path = folder / "curves.png"
            curves.draw(folder / "metrics.csv", path, title=title, level=level, since=since)

    trainer.loggers = []  # the curves end with the training
    # A run may have had nothing to validate, a fast_dev_run keeps nothing at all.
    tested = best.best_model_path or (str(kept) if kept.exists() else None)
    validated = trainer.validate(module, data, tested, verbose=False)
    outcome = {
        "val": _metrics("val", validated),
        "test": _metrics("test", trainer.test(module, data, tested, verbose=False)),
        "train": stopwatch.figures(trainer.global_step),
    }
    if watched := _metrics("attack", validated):  # by a callback
        outcome["attack"] = watched
    export(model, folder / "export", write=trainer.is_global_zero)
    if trainer.is_global_zero:
        outcome = describe(cfg) | {"flooding": module.descent.flood.outcome()} | outcome
        results.write(folder / "results.json", outcome)
        results.show(outcome, folder)
        if cfg.attack.recipes:
            found = attacks.attack(folder / "export", cfg, folder / "attacks")
            outcome["attack"] = {**watched, **attacks.brief(found)}
            results.write(folder / "results.json", outcome)
    split, _, name = (cfg.optimized_metric or monitor).partition("/")
    return outcome.get(split, {}).get(name)  # attacks are the first process's


def build(cfg: DictConfig, task: Task) -> FineTuner:
    """The method's module, with its task and its descent."""
    descent = Descent(
        optimizer=instantiate(cfg.optimizer),
        schedule=instantiate(cfg.scheduler),
        flood=instantiate(cfg.flood),
        proximal=instantiate(cfg.proximal),
        update=instantiate(cfg["update"]),  # cfg.update is a method of dictionaries
        mask=instantiate(cfg.mask),
        **{key: cfg.trainer[key] for key in trainers.BY_HAND},
    )
    # Partial first: Hydra would copy objects given as arguments.
    module = instantiate(cfg.method, _partial_=True)(task, descent)
    module.hparams.update(OmegaConf.to_container(cfg, resolve=True))
    return module


def plain(cfg: DictConfig, data: Batched[Any]) -> tuple[FineTune, L.Trainer]:
    """The same model, optimizer and trainer for plain fine-tuning, in one process."""
    model = configured.build(cfg, data.splits)
    options = {key: cfg.trainer[key] for key in trainers.BY_HAND}
    schedule = instantiate(cfg.scheduler)
    descent = Descent(optimizer=instantiate(cfg.optimizer), schedule=schedule, **options)
    return FineTune(model.task(data.splits), descent), trainers.alone(cfg)


def describe(cfg: DictConfig) -> dict[str, Any]:
    """What was run: the choice in every group, the seed, the versions."""
    choices = HydraConfig.get().runtime.choices
    groups = ("method", "flood", "proximal", "update", "mask", "task", "model", "peft", "data")
    named = {group: choices.get(group) for group in groups}
    return {**named, "seed": cfg.seed, "versions": results.versions()}


def export(model: Model | ImageModel, folder: Path, *, write: bool = True) -> None:
    """Write the network, with the weights last tested, and its tokenizer for a pipeline.

    Args:
        model: network, and tokenizer of texts.
        folder: to be written.
        write: whether this process does; all of them put sharded weights together.
    """
    weights = {name: sharding.whole_on_host(w) for name, w in model.network.state_dict().items()}
    if write:
        model.network.eval()
        model.write(folder, weights)


def check_metrics(cfg: DictConfig, task: Task) -> None:
    """Refuse a metric that no validation or test will give.

    Raises:
        ValueError: there is no such metric.
    """
    names = ["loss", *map(str, task.metrics().keys())]
    val, test = ([f"{split}/{name}" for name in names] for split in ("val", "test"))
    watched = val + [f"attack/{node.name}" for node in cfg.callbacks.values() if "recipe" in node]
    asked = {
        "monitor": (cfg.monitor, watched),
        "optimized_metric": (
            cfg.optimized_metric,
            [*watched, *test, *(f"attack/{name}" for name in cfg.attack.recipes)],
        ),
    }
    if cfg.scheduler.get("name") == PLATEAU:
        asked["scheduler.monitor"] = (cfg.scheduler.monitor, [*watched, "train/loss"])
    for key, (metric, known) in asked.items():
        if metric is not None and metric not in known:
            raise ValueError(f"{key}={metric}: no such metric; choose one of {', '.join(known)}")


def _metrics(kind: str, logged: list[Any]) -> dict[str, float]:
    both = {name: value for each in logged for name, value in each.items()}
    start = f"{kind}/"
    return {name.removeprefix(start): v for name, v in both.items() if name.startswith(start)}
