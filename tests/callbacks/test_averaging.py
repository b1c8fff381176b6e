"""Means of weights: by hand, in validation, in checkpoints, in what is tested from them."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from testbed import (
    METHODS,
    MeanPool,
    Recorder,
    Run,
    Stream,
    Tensors,
    batches,
    bert,
    classify,
    close,
    fit,
    same,
    sgd,
    weights,
    without_lightnings_own_warnings,
)
from torch import nn

from lit_adv import config
from lit_adv.updates.plain import Plain
from lit_adv.updates.sam import SAM
from lit_adv.updates.update import Update

BATCHES, EPOCHS, DECAY = 6, 3, 0.9


def averaging(name: str, **options: float) -> L.Callback:
    """The callback that `callbacks=NAME` names."""
    chosen = [f"callbacks.averaging.{key}={value}" for key, value in options.items()]
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        node = compose("train", [f"callbacks={name}", "output_dir=.", *chosen])
    return instantiate(node.callbacks.averaging)


class Keep(L.Callback):
    """The weights after each optimizer step, and those that are validated or tested."""

    def __init__(self) -> None:
        self.steps: list[Tensors] = []
        self.judged: list[Tensors] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.global_step > len(self.steps):
            self.steps.append(weights(pl_module))

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.judged.append(weights(pl_module))

    on_test_batch_start = on_validation_batch_start


def method(name: str = "finetune", network: nn.Module | None = None, **options: Any) -> Recorder:
    network = MeanPool(width=16, bend=True, dropout=0.2) if network is None else network
    return METHODS[name](classify(network), sgd(lr=0.3, **options))


def fitted(module: Recorder, *callbacks: L.Callback, **options: Any) -> Run:
    """Validated once per epoch."""
    data, held_out = batches(BATCHES), batches(1, seed=1)
    settings = {"epochs": EPOCHS, "validation": held_out, "callbacks": callbacks, **options}
    return fit(module, data, **settings)


def ema(steps: list[Tensors], decay: float = DECAY) -> list[Tensors]:
    """The moving average after each optimizer step."""
    means = [steps[0]]
    for now in steps[1:]:
        means.append({n: decay * w + (1 - decay) * now[n] for n, w in means[-1].items()})
    return means


def mean(steps: list[Tensors]) -> Tensors:
    return {name: torch.stack([step[name] for step in steps]).mean(0) for name in steps[0]}


# ---- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", [Plain(), SAM(0.5)], ids=["plain", "sam"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_moving_average_is_that_of_the_weights_after_each_step(update: Update, accumulate: int):
    keep, options = Keep(), {"update": update, "accumulate_grad_batches": accumulate}
    run = fitted(method("freelb", **options), averaging("ema", decay=DECAY), keep)
    count = BATCHES // accumulate
    assert len(keep.steps) == EPOCHS * count
    means = ema(keep.steps)
    close(weights(run.module), means[-1])
    close(keep.judged, means[count - 1 :: count])
    alone = Keep()
    fitted(method("freelb", **options), alone)
    same(keep.steps, alone.steps)  # training goes on as if nobody had averaged or validated


@pytest.mark.parametrize("update", [Plain(), SAM(0.5)], ids=["plain", "sam"])
@pytest.mark.parametrize("every", [1, 4])
def test_the_plain_mean_is_that_of_the_last_part_of_the_steps(update: Update, every: int):
    keep, steps = Keep(), BATCHES * EPOCHS
    swa = averaging("swa", start=0.5, every_n_steps=every)
    run = fitted(method("freelb", update=update), swa, keep)
    first = steps // 2
    close(weights(run.module), mean(keep.steps[first::every]))
    same(keep.judged[0], keep.steps[BATCHES - 1])  # before there is a mean: the weights themselves
    close(keep.judged[1], mean(keep.steps[first : 2 * BATCHES : every]))
    close(keep.judged[2], weights(run.module))


def test_a_late_start_still_leaves_a_mean():
    keep = Keep()
    run = fitted(method(), averaging("swa", start=0.99), keep)
    same(weights(run.module), keep.steps[-1])
    assert run.trainer.callbacks[1]._average_model.n_averaged == 1  # pyright: ignore


@pytest.mark.parametrize("name, options", [("ema", {"decay": DECAY}), ("swa", {"start": 0.0})])
def test_whole_numbers_are_not_averaged(name: str, options: dict[str, float]):
    network = bert()
    before = network.bert.embeddings.get_buffer("position_ids").clone()
    fitted(method(network=network), averaging(name, **options))
    same(network.bert.embeddings.get_buffer("position_ids"), before)
    network = MeanPool(norm=True)
    fitted(method(network=network), averaging(name, **options))
    assert network.norm is not None and network.norm.num_batches_tracked == BATCHES * EPOCHS


# ---- checkpoints ---------------------------------------------------------------------------------

KINDS = pytest.mark.parametrize("name, options", [("ema", {"decay": DECAY}), ("swa", {})])


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
@KINDS
@pytest.mark.parametrize("after", [0, 1])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(
    name: str, options: dict[str, float], after: int, tmp_path: Path
):
    keep, save = Keep(), ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = fitted(
        method("freelb"), averaging(name, **options), keep, save, enable_checkpointing=True
    )
    saved = torch.load(tmp_path / f"epoch={after}.ckpt", weights_only=True)
    same({n: saved["state_dict"][n] for n in keep.judged[after]}, keep.judged[after])
    path = str(tmp_path / f"epoch={after}.ckpt")
    rest = fitted(method("freelb"), averaging(name, **options), seed=1, resume=path)
    same(rest.gradients, whole.gradients[BATCHES * (after + 1) :])
    same(weights(rest.module), weights(whole.module))


@KINDS
def test_what_is_loaded_to_be_judged_is_the_mean_that_was_saved(
    name: str, options: dict[str, float], tmp_path: Path
):
    keep, save = Keep(), ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run = fitted(method(), averaging(name, **options), keep, save, enable_checkpointing=True)
    for epoch in reversed(range(EPOCHS)):
        saved = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        wanted = {name: saved[name] for name in keep.steps[0]}
        for stage in ("validate", "test"):
            keep.judged.clear()
            with without_lightnings_own_warnings():
                judge = getattr(run.trainer, stage)
                path = str(tmp_path / f"epoch={epoch}.ckpt")
                judge(run.module, Stream(batches(1)), ckpt_path=path, verbose=False)
            same(keep.judged, [wanted])
            same(weights(run.module), wanted)
