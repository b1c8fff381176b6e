"""A Trainer of transformers keeps what it has: scales, clipping, logs, checkpoints, evaluation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from adoption.theirs import in_double
from testbed import Tensors, batches, bert, cut, same, weights
from torch import nn

pytest.importorskip("accelerate", reason="an extra")

from transformers import Trainer, TrainerCallback, TrainingArguments

from lit_adv.huggingface import AdversarialTrainer
from lit_adv.methods.fgm import FGM
from lit_adv.methods.freelb import FreeLB


def rows(data: Sequence[Tensors]) -> list[Tensors]:
    parts = [cut(batch, *[1] * len(batch["labels"])) for batch in data]
    keys = ("input_ids", "attention_mask", "labels")
    return [{key: row[key][0] for key in keys} for part in parts for row in part]


class Losses(TrainerCallback):
    """The losses that a Trainer says of its steps."""

    def __init__(self) -> None:
        self.said: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.said += [float(logs["loss"])] if "loss" in logs else []


def trainer(kind: Any, folder: Path, network: nn.Module, **options: Any) -> Any:
    settings = {name: options.pop(name) for name in list(options) if name in ARGUMENTS}
    arguments = TrainingArguments(
        output_dir=str(folder),
        **{**ARGUMENTS, **settings},
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_steps=1,
    )
    losses = Losses()
    made = kind(
        model=network,
        args=arguments,
        train_dataset=rows(batches(4)),
        eval_dataset=rows(batches(1, seed=9)),
        callbacks=[losses],
        **options,
    )
    made.losses = losses
    return made


ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1e-2,
    "num_train_epochs": 1,
    "max_grad_norm": 1.0,
    "label_smoothing_factor": 0.0,
    "save_strategy": "no",
    "save_steps": 1,
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3},  # the last has one
        {"max_grad_norm": 0.1},
        {"label_smoothing_factor": 0.2},
    ],
)
def test_plain_fine_tuning_is_its_own_training_to_the_last_bit(
    options: dict[str, Any], tmp_path: Path
):
    """Also where it takes the sum of micro-batches' losses for their mean, as it does for BERT."""
    ends = []
    for kind, method in ((Trainer, {}), (AdversarialTrainer, {"method": "finetune"})):
        network = bert(dropout=0.1)
        made = trainer(kind, tmp_path, network, **options, **method)
        made.train()
        ends.append((weights(network), made.losses.said, made.evaluate()["eval_loss"]))
    same(ends[1][0], ends[0][0])
    assert ends[1][1:] == ends[0][1:]


def test_clipping_and_scale_are_behind_the_passes(tmp_path: Path):
    """Twice the loss, by two passes at no distance, clipped to the same step as once."""
    ends = []
    for method in ("finetune", FGM(radius=0.0)):
        network = bert()
        trainer(AdversarialTrainer, tmp_path, network, method=method, max_grad_norm=1e-3).train()
        ends.append(weights(network))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-8)


def test_a_resumed_training_draws_the_noise_of_an_uninterrupted_one(tmp_path: Path):
    def end(folder: str, **resumed: Any) -> Tensors:
        network = bert(dropout=0.1)
        method = FreeLB(steps=2, radius=0.5, init_size=0.4)
        with in_double():
            made = trainer(
                AdversarialTrainer, tmp_path / folder, network, method=method,
                save_strategy="steps",
            )  # fmt: skip
            made.train(**resumed)
        return weights(network)

    whole = end("run")
    assert (tmp_path / "run" / "checkpoint-2" / "adversary.pt").is_file()
    same(end("run", resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2")), whole)


def test_a_method_may_be_a_name_with_all_that_adopt_takes(tmp_path: Path):
    network = bert()
    adversary = {"radius": 0.5, "flood": "fixed", "update": "sam", "at": "bert.embeddings"}
    made = trainer(AdversarialTrainer, tmp_path, network, method="fgm", adversary=adversary)
    made.train()
    assert float(made._alone.logged["perturbation/norm"]) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="^method=fgmm: no such method; did you mean fgm"):
        trainer(AdversarialTrainer, tmp_path, network, method="fgmm")


def test_each_trial_of_a_search_has_its_own_memory(tmp_path: Path):
    pytest.importorskip("optuna", reason="an extra")
    made = trainer(
        AdversarialTrainer, tmp_path, bert(), method=FGM(radius=0.5), save_strategy="epoch"
    )
    made.model_init = lambda trial: bert()  # pyright: ignore[reportAttributeAccessIssue]
    made.hyperparameter_search(n_trials=2, backend="optuna", hp_space=lambda trial: {})
    for number in (0, 1):
        (folder,) = (tmp_path / f"run-{number}").iterdir()
        assert (folder / "adversary.pt").is_file() and (folder / "model.safetensors").is_file()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_checkpoint_without_a_memory_is_named(tmp_path: Path):
    made = trainer(Trainer, tmp_path, bert(), save_strategy="steps")
    made.train()
    made = trainer(AdversarialTrainer, tmp_path, bert(), method=FGM(radius=0.5))
    with pytest.warns(UserWarning, match="adversary.pt: not there; the method begins anew"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
