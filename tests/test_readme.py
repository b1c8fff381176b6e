"""What the README says that can be checked without running it."""

import re
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from testbed import without_lightnings_own_warnings
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_adv.cli.methods import markdown

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_methods_is_the_one_that_the_command_prints():
    between = re.search(r"<!-- methods -->\n(.*?)\n<!-- /methods -->", README, re.DOTALL)
    assert between is not None
    assert between[1] == markdown()


def test_every_choice_of_every_group_is_named():
    conf = Path(__file__).parents[1] / "conf"
    for group in (
        "method",
        "flood",
        "proximal",
        "update",
        "mask",
        "task",
        "model",
        "peft",
        "data",
        "callbacks",
        "sweep",
    ):
        for path in (conf / group).rglob("*.yaml"):
            name = path.relative_to(conf / group).with_suffix("").as_posix()
            if (group, name) != ("data", "batches"):
                assert f"`{name}`" in README or f"{group}={name}`" in README, name


class Theirs(L.LightningModule):
    """A module of automatic optimisation that knows nothing of this library."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch["x"]), batch["y"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self(batch["x"]), batch["y"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_example_of_accordance_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = re.search(r"<!-- accordance -->\n```python\n(.*?)```", README, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    rows = [{"x": torch.randn(3), "y": torch.tensor(n % 2)} for n in range(24)]
    loader = DataLoader(rows, batch_size=4)  # pyright: ignore[reportArgumentType]
    given = {"module": Theirs(), "train_dataloader": loader, "val_dataloader": loader}
    with without_lightnings_own_warnings(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers")
        warnings.filterwarnings("ignore", "The number of training batches")
        exec(code[1], given)  # as a reader would
    watch: Any = given["watch"]
    assert [reading.step for reading in watch.readings] == [6, 12, 18]
    assert set(watch.readings[0].values) == {"cross", "same", "all", "within", "validation"}
    assert (tmp_path / "accordance.png").stat().st_size > 0
