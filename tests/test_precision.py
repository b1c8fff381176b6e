"""Half precision: loss scales, overflows, and copies of weights that autocast keeps."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from testbed import FREE, METHODS, Recorder, Run, batches, bert, classify, fit, same, sgd
from torch import Tensor

from lit_adv.descent import Schedule
from lit_adv.masks.child_f import ChildF
from lit_adv.proximal.mbpp import MBPP
from lit_adv.updates.alternate import Alternate
from lit_adv.updates.asam import ASAM
from lit_adv.updates.awp import AWP
from lit_adv.updates.backstitch import Backstitch
from lit_adv.updates.gradient_penalty import GradientPenalty
from lit_adv.updates.sam import SAM


def build(name: str = "freelb", **options: Any) -> Recorder:
    method = FREE if name == "free_at" else METHODS[name]
    return method(classify(bert().float()), sgd(**options))


def half(module: Recorder, scaler: torch.amp.GradScaler, count: int = 6, *watch: L.Callback) -> Run:
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    return fit(module, batches(count), precision=None, plugins=[plugin], callbacks=[*watch])


# ---- overflows -----------------------------------------------------------------------------------

SKIPPED = 2


def overflowing() -> torch.amp.GradScaler:
    """A loss scale that is too large at the first two steps."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-25)


class Watch(L.Callback):
    """What each step leaves."""

    def __init__(self) -> None:
        self.weights: list[list[Tensor]] = []
        self.teachers: list[list[Tensor]] = []
        self.rates: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any, **__: Any
    ) -> None:
        assert isinstance(pl_module, Recorder)
        self.weights.append([weight.detach().clone() for weight in pl_module.task.parameters()])
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        teacher = pl_module.descent.proximal.teacher
        if teacher is not None:
            self.teachers.append([weight.clone() for weight in teacher.weights.values()])


@pytest.mark.parametrize("name", ["finetune", "freelb", "smart", "pgd_b"])
def test_an_overflow_skips_step_schedule_teacher_and_mask_alike(name: str):
    def module() -> Recorder:
        torch.manual_seed(0)
        schedule = Schedule(name="linear", warmup=0.5)
        return build(name, schedule=schedule, proximal=MBPP(beta=0.5), mask=ChildF(share=0.5))

    start = [weight.detach().clone() for weight in module().task.parameters()]
    bad, good = Watch(), Watch()
    trained = module()
    run = half(trained, overflowing(), 6, bad)
    assert run.trainer.global_step == 6 and trained.skipped_steps == SKIPPED
    same(bad.weights[:SKIPPED], [start] * SKIPPED)
    same(bad.teachers[:SKIPPED], [start] * SKIPPED)

    # From the third step on it is a training that has had no step before: schedule, masks, teacher.
    torch.manual_seed(0)
    fresh = module()
    fresh.noise.set_state(trained_noise(name, SKIPPED))
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    options = {"precision": None, "plugins": [plugin], "callbacks": [good]}
    fit(fresh, batches(6)[SKIPPED:] + batches(2), **options)
    assert bad.rates[SKIPPED:] == good.rates[: 6 - SKIPPED]
    same(bad.weights[SKIPPED:], good.weights[: 6 - SKIPPED])
    same(bad.teachers[SKIPPED:], good.teachers[: 6 - SKIPPED])


def trained_noise(name: str, steps: int) -> Tensor:
    """The noise's stream after so many steps."""
    torch.manual_seed(0)
    module = build(name)
    half(module, torch.amp.GradScaler("cpu", init_scale=2.0**10), steps)
    return module.noise.get_state()


def test_skipped_steps_are_remembered_by_checkpoints(tmp_path: Any):
    module = build()
    run = half(module, overflowing())
    run.trainer.save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert saved["lit_adv"]["skipped_steps"] == SKIPPED


@pytest.mark.parametrize("name", ["fgm", "pgd_a", "freelb", "tavat", "free_at", "smart", "vat"])
def test_the_direction_does_not_depend_on_the_loss_scale(name: str):
    deltas = []
    for power in (4, 12):
        module = build(name, lr=0.0)
        run = half(module, torch.amp.GradScaler("cpu", init_scale=2.0**power), 1)
        deltas.append(run.module.deltas)
        assert all(delta.dtype == torch.float32 for delta in run.module.deltas)
    assert deltas[0][-1].any()
    for one, other in zip(*deltas, strict=True):
        assert one.any() == other.any()
        if not one.any():  # the start
            continue
        cosine = torch.cosine_similarity(one.flatten(1), other.flatten(1))
        assert (cosine > 0.999).all()


# ---- what autocast keeps -------------------------------------------------------------------------


class Caching(MixedPrecision):
    """As Lightning has been up to 2.5.4 and will be again: one region that caches casts."""

    @contextmanager
    def forward_context(self) -> Generator[None, None, None]:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
            yield


MOVING: dict[str, partial[Recorder]] = {
    "free_at": partial(build, "free_at"),
    "sam": partial(build, "freelb", update=SAM(radius=0.5)),
    "asam": partial(build, "fgm", update=ASAM()),
    "awp": partial(build, "pgd_b", update=AWP(radius=0.1, step_size=0.1)),
    "backstitch": partial(build, "fgm", update=Backstitch(scale=0.9)),
    "alternate": partial(build, "fgm", update=Alternate()),
    "gradient_penalty": partial(build, "fgm", update=GradientPenalty(radius=0.5)),
    # One graph per backward pass, or shared copies would add up gradients in half precision.
    "mbpp": partial(build, "finetune", proximal=MBPP(beta=0.5)),
}


def trained(name: str, plugin: MixedPrecision) -> list[Tensor]:
    run = fit(MOVING[name](lr=0.3), batches(3), precision=None, plugins=[plugin])
    return list(run.weights.values())


@pytest.mark.parametrize("name", MOVING)
def test_no_pass_sees_weights_as_they_were_before_a_change(name: str):
    caching, fresh = Caching("bf16-mixed", "cpu"), MixedPrecision("bf16-mixed", "cpu")
    same(trained(name, caching), trained(name, fresh))


@pytest.mark.parametrize("name", [name for name in MOVING if name not in ("alternate", "mbpp")])
def test_such_a_pass_would_be_noticed(name: str, monkeypatch: pytest.MonkeyPatch):
    expected = trained(name, MixedPrecision("bf16-mixed", "cpu"))
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: None)
    stale = trained(name, Caching("bf16-mixed", "cpu"))
    assert any(not torch.equal(one, other) for one, other in zip(stale, expected, strict=True))
