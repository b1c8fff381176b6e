"""Pruning: by a median known by hand, at the right validation, of trials that are at work."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from torch.utils.data import DataLoader, TensorDataset

from lit_adv.callbacks import pruning
from lit_adv.sweeps import trial as trials
from lit_adv.sweeps.storage import storage
from lit_adv.sweeps.trial import Pruned, Trial

B: dict[str, BaseDistribution] = {"b": FloatDistribution(0, 1)}
OTHERS = [[0.3, 0.3, 0.3, 0.3], [0.5, 0.5, 0.6, 0.65], [0.7, 0.7, 0.7, 0.7]]
"""Of trials that are complete, at each validation; their median is that of the second."""


class Scripted(L.LightningModule):
    """Has these values of the metric, one at each validation."""

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        self.values, self.validations = list(values), 0
        self.reason: str | None = None
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, *_: Any) -> torch.Tensor:
        return self.weight * 0

    def validation_step(self, *_: Any) -> None:
        self.log("val/accuracy", self.values[self.validations], batch_size=1)

    def on_validation_end(self) -> None:  # after that of callbacks
        self.validations += not self.trainer.sanity_checking

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    place = storage(str(tmp_path / "journal"))
    study = optuna.create_study(storage=place, study_name="search", direction="maximize")
    for values in OTHERS:
        reported = dict(enumerate(values, 1))
        study.add_trial(
            create_trial(
                params={"b": 0.1}, distributions=B, value=values[-1], intermediate_values=reported
            )
        )
    study.ask(B)
    return study


def train(
    folder: Path,
    values: Sequence[float],
    startup_trials: int = 3,
    warmup: int = 0,
    metric: str = "test/accuracy",
    **options: Any,
) -> Scripted:
    """A training of as many epochs as there are values, of four batches each, as trial 3."""
    pruned = trials.Pruning(startup_trials, warmup)
    trials.note(folder, Trial(str(folder / "journal"), "search", 3, metric, pruned))
    module = Scripted(values)
    batches = DataLoader(TensorDataset(torch.zeros(4)))
    options = {"max_epochs": len(values), **options}
    trainer = L.Trainer(
        **options,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=pruning.asked(folder, "val/accuracy"),
    )
    try:
        trainer.fit(module, batches, batches)
    except Pruned as error:
        module.reason = str(error)
    return module


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)"),
]


@pytest.mark.parametrize(
    ("values", "options", "epoch", "said"),
    [
        ([0.4, 0.4, 0.4, 0.4], {}, 1, "0.4000 at best is below 0.5000"),
        ([0.4, 0.4, 0.4, 0.4], {"warmup": 1}, 2, "0.4000 at best is below 0.5000"),
        ([0.5, 0.1, 0.1, 0.1], {}, 3, "0.5000 at best is below 0.6000"),
        ([0.6, 0.1, 0.1, 0.1], {}, None, ""),  # below the median at the last one, which is over
        ([0.4, 0.4, 0.4, 0.4], {"startup_trials": 4}, None, ""),
    ],
)
def test_it_ends_where_the_best_so_far_is_below_the_median(
    values: list[float],
    options: dict[str, Any],
    epoch: int | None,
    said: str,
    tmp_path: Path,
    study: optuna.Study,
):
    module = train(tmp_path, values, **options)
    if epoch is None:
        assert module.reason is None and module.validations == len(values)
    else:
        assert (
            module.reason
            == f"pruned after epoch {epoch}: val/accuracy {said}, the median of 3 others"
        )
    reported = study.trials[3].intermediate_values
    assert reported == pytest.approx(dict(enumerate(values[: epoch or len(values)], 1)))


def test_validations_within_epochs_are_counted_and_told(tmp_path: Path, study: optuna.Study):
    module = train(tmp_path, [0.5, 0.4, 0.4], max_epochs=3, val_check_interval=0.5)
    assert module.reason == (
        "pruned after 1.50 epochs: val/accuracy 0.5000 at best is below 0.6000, the median of 3 "
        "others"
    )
    assert study.trials[3].intermediate_values == pytest.approx({1: 0.5, 2: 0.4, 3: 0.4})
    train(tmp_path, [0.4, 0.4, 0.4], max_epochs=3, val_check_interval=0.5)  # it goes on
    assert study.trials[3].intermediate_values[1] == pytest.approx(0.5)


def test_a_trial_that_has_ended_is_left_alone(tmp_path: Path, study: optuna.Study):
    study.tell(3, state=TrialState.FAIL)
    module = train(tmp_path, [0.1, 0.1])
    assert module.validations == 2 and study.trials[3].intermediate_values == {}


def test_a_metric_that_validation_does_not_give_is_named(tmp_path: Path, study: optuna.Study):
    with pytest.raises(ValueError, match="validation does not give attack/pwws"):
        train(tmp_path, [0.1], metric="attack/pwws")


def test_a_run_of_no_search_is_not_pruned(tmp_path: Path):
    assert pruning.asked(tmp_path, "val/accuracy") == []
