"""Every pair of choices from two groups trains, is finite, and resumes to the last bit.

Not every mix of five groups, of which there are thousands, but enough of them that any two choices
meet in one, or are refused.
"""

from functools import cache
from itertools import combinations, product
from pathlib import Path
from tempfile import mkdtemp
from zlib import crc32

import lightning as L
import logs
import pytest
import torch
from hydra import compose, initialize_config_dir
from testbed import batches, bert, classify
from torch.utils.data import DataLoader

from lit_adv import config
from lit_adv.finetuner import FineTuner
from lit_adv.flood.ada import Ada
from lit_adv.run import build

GROUPS: tuple[str, ...] = ("method", "update", "mask", "flood", "proximal")


def choices(group: str) -> list[str]:
    folder = config.folder() / group
    return sorted(str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml"))


ALL = {group: choices(group) for group in GROUPS}
CHOICES = {group: [name for name in names if "/" not in name] for group, names in ALL.items()}
PRESETS = [(group, name) for group, names in ALL.items() for name in names if "/" in name]


def refused(mix: dict[str, str]) -> bool:
    """Which mixes make no sense."""
    return (mix["method"] == "free_at" and mix["update"] != "plain") or (
        mix["update"] == "alternate" and mix["flood"] != "none"
    )


def pairs(mix: dict[str, str]) -> set[tuple[str, str, str, str]]:
    return {(one, mix[one], other, mix[other]) for one, other in combinations(GROUPS, 2)}


def mixes() -> list[dict[str, str]]:
    """For every method and update the others that bring most new pairs."""
    met: set[tuple[str, str, str, str]] = set()
    chosen = []
    rest = list(product(*(CHOICES[group] for group in GROUPS[2:])))
    for method, update in product(CHOICES["method"], CHOICES["update"]):
        possible = [dict(zip(GROUPS, (method, update, *others), strict=True)) for others in rest]
        possible = [mix for mix in possible if not refused(mix)]
        if possible:
            best = max(possible, key=lambda mix: len(pairs(mix) - met))
            met |= pairs(best)
            chosen.append(best)
    # What the others crowd out: a method that goes with one update only meets them by itself.
    for others in product(*(CHOICES[group] for group in GROUPS)):
        mix = dict(zip(GROUPS, others, strict=True))
        if not refused(mix) and pairs(mix) - met:
            met |= pairs(mix)
            chosen.append(mix)
    return chosen


def overrides(mix: dict[str, str]) -> list[str]:
    chosen = [f"{group}={choice}" for group, choice in mix.items()]
    level = {
        "fixed": ["flood.b=0.69"],
        "individual": ["flood.b=0.69"],
        "auto": ["flood.b=0.69", "flood.accordance.every_n_steps=1", "flood.hysteresis=0"],
        "half": [f"flood.run={logs.written(Path(mkdtemp()))}", "flood.factor=1.0"],
    }.get(mix["flood"], [])
    return [*chosen, *level, "output_dir=.", "optimizer.lr=0.01"]


@cache
def composed(*chosen: str):
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        return compose("train", list(chosen))


class StopAfterFirstEpoch(L.Callback):
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = True


def fit(
    mix: dict[str, str], *, ckpt: Path | None = None, stop: bool = False
) -> tuple[L.Trainer, FineTuner]:
    torch.manual_seed(0)
    module = build(composed(*overrides(mix)), classify(bert()))
    if isinstance(module.descent.flood, Ada) and ckpt is None:
        module.descent.flood.adopt(torch.linspace(0.0, 3.0, 8))
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        min_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=mkdtemp(),  # for the picture
        callbacks=[StopAfterFirstEpoch()] if stop else [],
    )
    rows = [{**b, "index": 4 * i + torch.arange(4)} for i, b in enumerate(batches(count=2))]
    data = DataLoader(rows, batch_size=None)  # pyright: ignore[reportArgumentType]
    trainer.fit(module, data, data, ckpt_path=ckpt)
    return trainer, module


def presets() -> list[dict[str, str]]:
    """Each in one mix with another piece."""
    plain = dict.fromkeys(GROUPS, "none") | {"method": "finetune", "update": "plain"}
    return [plain | {"proximal": "vbpp", "mask": "child_f", group: name} for group, name in PRESETS]


def named(mix: dict[str, str]) -> str:
    return " ".join(choice for choice in mix.values() if choice not in ("none", "plain"))


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
@pytest.mark.parametrize("mix", [*mixes(), *presets()], ids=named)
def test_it_trains_is_finite_and_resumes(mix: dict[str, str], tmp_path: Path):
    """Every other one is stopped and goes on; tests/test_resume.py does so with every piece."""
    trainer, whole = fit(mix)
    assert trainer.global_step == 4
    for name, value in trainer.callback_metrics.items():
        assert value.isfinite(), name
    before = dict(classify(bert()).named_parameters())
    after = dict(whole.named_parameters())
    assert all(weight.isfinite().all() for weight in after.values())
    assert any(not torch.equal(weight, after[f"task.{name}"]) for name, weight in before.items())

    if crc32(named(mix).encode()) % 2:
        return
    half, _ = fit(mix, stop=True)
    assert half.global_step == 2
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, rest = fit(mix, ckpt=tmp_path / "half.ckpt")
    assert resumed.global_step == 4
    for name, weight in rest.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name


def test_any_two_choices_meet_or_are_refused():
    met = set().union(*map(pairs, mixes()))
    for one, other in combinations(GROUPS, 2):
        for first, second in product(CHOICES[one], CHOICES[other]):
            if (one, first, other, second) not in met:
                others = (CHOICES[group] for group in GROUPS if group not in (one, other))
                names = [group for group in GROUPS if group not in (one, other)]
                for rest in product(*others):
                    mix = {one: first, other: second, **dict(zip(names, rest, strict=True))}
                    assert refused(mix), mix


@pytest.mark.parametrize("update", [u for u in CHOICES["update"] if u != "plain"])
def test_a_method_that_steps_by_itself_goes_with_plain_updates_only(update: str):
    mix = dict.fromkeys(GROUPS, "none") | {"method": "free_at", "update": update}
    with pytest.raises(ValueError, match="update=.*: FreeAT steps several times per batch"):
        build(composed(*overrides(mix)), classify(bert()))


@pytest.mark.parametrize("flood", [f for f in CHOICES["flood"] if f != "none"])
def test_only_one_of_flood_and_update_turns_steps_uphill(flood: str):
    mix = dict.fromkeys(GROUPS, "none") | {"method": "finetune", "update": "alternate"}
    with pytest.raises(ValueError, match="flood=.*update=alternate both would turn steps uphill"):
        build(composed(*overrides(mix | {"flood": flood})), classify(bert()))
