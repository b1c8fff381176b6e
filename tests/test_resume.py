"""A training that stops at any batch goes on as if it had not: to the last bit."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from testbed import FREE, METHODS, Tensors, batches, bert, classify, same
from torch import nn
from torch.utils.data import DataLoader

from lit_adv.descent import Descent, Schedule, adamw
from lit_adv.flood.auto import Auto
from lit_adv.flood.fixed import Fixed
from lit_adv.flood.individual import Individual
from lit_adv.loop import Loop
from lit_adv.masks.child_d import ChildD
from lit_adv.masks.child_f import ChildF
from lit_adv.proximal.mbpp import MBPP
from lit_adv.proximal.vbpp import VBPP
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM

EPOCHS, BATCHES = 2, 5


class Loader:
    """Batches of an epoch in an order of its own, that goes on where a checkpoint says."""

    def __init__(self, data: Sequence[Tensors]) -> None:
        self.data, self.done, self.epoch = data, 0, 0

    def __iter__(self) -> Iterator[Tensors]:
        if self.done == len(self):
            self.done, self.epoch = 0, self.epoch + 1
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.epoch))
        for row in order[self.done :].tolist():
            self.done += 1
            yield self.data[row]

    def __len__(self) -> int:
        return len(self.data)

    def state_dict(self) -> dict[str, int]:
        return {"done": self.done, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.done, self.epoch = state["done"], state["epoch"]


class Save(L.Callback):
    """A checkpoint after every batch; the file is named by the number of batches."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        self.count += 1
        trainer.save_checkpoint(self.folder / f"{self.count}.ckpt")


PARTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sam": {"update": SAM},
    "asam, child_f": {"update": ASAM, "mask": partial(ChildF, share=0.5)},
    "awp, mbpp": {"update": AWP, "proximal": partial(MBPP, beta=0.5)},
    "backstitch, child_d": {"update": Backstitch, "mask": partial(ChildD, share=0.5)},
    "alternate, vbpp": {"update": Alternate, "proximal": partial(VBPP, steps=3)},
    "gradient_penalty, flood": {"update": GradientPenalty, "flood": partial(Fixed, 0.69)},
    "iflood, mbpp": {"flood": partial(Individual, 0.69), "proximal": MBPP},
}


def build(method: str, parts: str = "plain", windows: int = 1, **options: Any) -> Loop:
    torch.manual_seed(5)
    descent = Descent(
        optimizer=partial(adamw, lr=0.01),
        schedule=Schedule(warmup=0.2),
        accumulate_grad_batches=windows,
        gradient_clip_val=1.0,
        **{name: part() for name, part in PARTS[parts].items()},
    )
    return (FREE if method == "free_at" else METHODS[method])(
        classify(bert(dropout=0.2).float()), descent, **options
    )


def fit(
    module: Loop, *, callbacks: Sequence[L.Callback] = (), ckpt: Path | None = None, **options: Any
) -> L.Trainer:
    data = batches(BATCHES)
    loader = Loader(data)
    held_out: Any = DataLoader(batches(2, seed=9), batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=EPOCHS, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        callbacks=[*callbacks], **options,
    )  # fmt: skip
    torch.manual_seed(3 if ckpt is None else 4)
    trainer.fit(module, loader, held_out if options else None, ckpt_path=ckpt)
    return trainer


def state(module: nn.Module) -> Tensors:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


quiet = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:.*have no `val_dataloader`"
)

RUNS = [
    *((name, "plain", 2) for name in METHODS),
    *((name, "plain", 1) for name in ("finetune", "freelb", "free_at")),
    *(("freelb", parts, 3) for parts in PARTS),
    *(("smart", parts, 1) for parts in PARTS if parts != "plain"),
]


@quiet
@pytest.mark.parametrize("method, parts, windows", RUNS)
def test_a_training_resumes_from_any_batch(method: str, parts: str, windows: int, tmp_path: Path):
    whole = build(method, parts, windows)
    fit(whole, callbacks=[Save(tmp_path)])
    for stop in (2, 3, BATCHES, BATCHES + 1):
        rest = build(method, parts, windows)
        trainer = fit(rest, ckpt=tmp_path / f"{stop}.ckpt")
        same(state(rest), state(whole), msg=lambda text, stop=stop: f"after {stop}: {text}")
        assert trainer.global_step == EPOCHS * -(-BATCHES // windows)


@quiet
def test_a_training_that_stops_twice_within_one_effective_batch_resumes(tmp_path: Path):
    whole = build("freelb", windows=3)
    (tmp_path / "again").mkdir()
    fit(whole, callbacks=[Save(tmp_path)])
    fit(build("freelb", windows=3), callbacks=[Save(tmp_path / "again")], ckpt=tmp_path / "5.ckpt")
    for first in (4, 9):  # in the second effective batch of either epoch
        fit(
            build("freelb", windows=3),
            callbacks=[Save(tmp_path / "again")],
            ckpt=tmp_path / f"{first}.ckpt",
        )
        rest = build("freelb", windows=3)
        fit(rest, ckpt=tmp_path / "again" / "1.ckpt")
        same(state(rest), state(whole))


@quiet
def test_a_new_training_counts_no_steps_skipped_by_the_last_one():
    module = build("finetune")
    fit(module)
    module.skipped_steps = 2
    fit(module)
    assert module.skipped_steps == 0


@quiet
def test_free_ats_perturbation_persists_over_a_stop(tmp_path: Path):
    whole = build("free_at", persist=True)
    fit(whole, callbacks=[Save(tmp_path)])
    rest = build("free_at", persist=True)
    fit(rest, ckpt=tmp_path / "4.ckpt")
    same(state(rest), state(whole))


@quiet
@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize("every", [2, 3])
def test_validations_within_an_epoch_change_nothing(windows: int, every: int, tmp_path: Path):
    class AfterValidation(L.Callback):
        count = 0

        def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            self.count += 1
            trainer.save_checkpoint(tmp_path / f"val{self.count}.ckpt")

    whole, after = build("freelb", windows=windows), AfterValidation()
    fit(whole, callbacks=[Save(tmp_path), after], val_check_interval=every)
    files = sorted(tmp_path.glob("*.ckpt"))
    assert after.count == EPOCHS * (BATCHES // every)
    for file in files:
        rest = build("freelb", windows=windows)
        trainer = fit(rest, ckpt=file, val_check_interval=every)
        same(state(rest), state(whole), msg=lambda text, file=file: f"{file.name}: {text}")
        steps = EPOCHS * -(-BATCHES // windows)
        assert trainer.global_step == steps
        if torch.load(file, weights_only=True)["global_step"] < steps:  # else nothing is logged
            assert trainer.fit_loop.epoch_loop._batches_that_stepped == steps


@quiet
def test_a_checkpoint_may_be_loaded_with_weights_only(tmp_path: Path):
    fit(build("tavat", "asam, child_f", 3), callbacks=[Save(tmp_path)])
    saved = torch.load(tmp_path / "2.ckpt", weights_only=True)
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    assert progress == dict.fromkeys(("ready", "completed", "started", "processed"), 0)


@quiet
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path):
    fit(build("finetune"), callbacks=[Save(tmp_path)])
    saved = torch.load(tmp_path / "1.ckpt", weights_only=True)
    del saved["lit_adv"]
    torch.save(saved, tmp_path / "foreign.ckpt")
    with pytest.raises(ValueError, match="ckpt_path: a checkpoint of something else than lit_adv"):
        fit(build("finetune"), ckpt=tmp_path / "foreign.ckpt")


@quiet
def test_what_the_checkpoint_does_not_know_begins_anew(tmp_path: Path):
    """Another flood, and no proximal term then."""
    fit(build("finetune"), callbacks=[Save(tmp_path)])
    rest = build("finetune")
    rest.descent.flood, rest.descent.proximal = Auto(), MBPP()
    with pytest.warns(UserWarning, match="begins anew") as said:
        fit(rest, ckpt=tmp_path / "2.ckpt", check_val_every_n_epoch=1)
    assert [str(each.message) for each in said if "anew" in str(each.message)] == [
        "ckpt_path: its flood was NoFlood; Auto begins anew",
        "ckpt_path: its proximal was NoProximal; MBPP begins anew",
    ]
    assert rest.trainer.global_step == EPOCHS * BATCHES


@quiet
def test_another_optimizers_checkpoint_is_refused(tmp_path: Path):
    fit(build("finetune"), callbacks=[Save(tmp_path)])
    rest = build("finetune")
    rest.descent.optimizer = partial(torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="optimizer: the checkpoint's is not SGD"):
        fit(rest, ckpt=tmp_path / "2.ckpt")


def test_an_interrupted_write_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lit_adv.checkpoint_io import AtomicCheckpointIO

    writer, path = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    writer.save_checkpoint({"step": 1}, path)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    writer.save_checkpoint({"step": 3}, path)
    assert torch.load(path, weights_only=True) == {"step": 3}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
