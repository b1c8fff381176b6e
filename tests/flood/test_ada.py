"""AdaFlood: every example's own level, from auxiliary losses to the gradient and the checkpoint."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from testbed import (
    METHODS,
    Floodable,
    MeanPool,
    Run,
    Tensors,
    batches,
    close,
    derivative,
    fit,
    loss,
    same,
    sgd,
)
from torch import Tensor

from lit_adv.flood.ada import Ada
from lit_adv.flood.flood import Flood
from lit_adv.flood.individual import Individual
from lit_adv.flood.none import NoFlood
from lit_adv.tasks.task import Batch

LOSSES = torch.tensor([0.0, 1e-8, 0.03, 0.4, 0.69, 1.5, 9.0, 40.0, 1e4])


def levels(losses: Tensor, **options: float) -> Tensor:
    """The levels that AdaFlood derives from these auxiliary losses."""
    flood = Ada(**options)  # pyright: ignore[reportArgumentType]
    flood.adopt(losses)
    assert flood.levels is not None
    return flood.levels


# ---- levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.05, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("alpha, beta", [(1.0, 0.0), (2.0, 0.0), (0.5, 0.3), (0.0, 0.2)])
def test_the_labels_probability_is_mixed_with_one(gamma: float, alpha: float, beta: float):
    for level, a in zip(levels(LOSSES, gamma=gamma, alpha=alpha, beta=beta), LOSSES, strict=True):
        wanted = alpha * a.item() + beta
        mixed = (1 - gamma) * math.exp(-wanted) + gamma
        if mixed > 0:  # else even float64 has no such probability, and gamma is 0
            wanted = -math.log(mixed)
        assert level.item() == pytest.approx(wanted, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.05, 0.25, 0.5, 0.9, 1.0])
def test_levels_lie_between_zero_and_minus_log_gamma_and_rise_with_the_loss(gamma: float):
    stream = torch.Generator().manual_seed(0)
    losses = torch.cat([10 * torch.rand(1000, generator=stream), LOSSES]).sort().values
    found = levels(losses, gamma=gamma)
    assert found.min() >= 0 and found.max() <= -math.log(gamma) * (1 + 1e-6)
    assert (found.diff() >= 0).all()
    if gamma < 1:
        assert (levels(torch.linspace(0, 5, 50), gamma=gamma).diff() > 0).all()


def test_without_correction_the_levels_are_the_auxiliary_losses():
    close(levels(LOSSES, gamma=0.0), LOSSES, rtol=1e-6, atol=0)


def test_levels_are_float32_whatever_the_losses():
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert levels(LOSSES.to(dtype)).dtype == torch.float32


@pytest.mark.parametrize(
    "options, said",
    [
        ({"folds": 1}, "flood.folds=1: needs to be at least 2"),
        ({"gamma": -0.1}, r"flood.gamma=-0.1: needs to lie in \[0, 1\]"),
        ({"gamma": math.nan}, "flood.gamma=nan"),
        ({"alpha": -1.0}, "flood.alpha=-1.0: needs to be at least 0"),
        ({"beta": math.nan}, "flood.beta=nan"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, float], said: str):
    with pytest.raises(ValueError, match=said):
        Ada(**options)  # pyright: ignore[reportArgumentType]


# ---- training ------------------------------------------------------------------------------------

STEPS, SIZE = 4, 4


def numbered() -> list[Tensors]:
    """Batches whose examples stand anywhere in a training set."""
    order = torch.randperm(STEPS * SIZE, generator=torch.Generator().manual_seed(3))
    parts = zip(batches(STEPS, SIZE), order.split(SIZE), strict=True)
    return [{**batch, "index": rows} for batch, rows in parts]


def ada(losses: Tensor, **options: float) -> Ada:
    """With levels from these losses."""
    flood = Ada(**options)  # pyright: ignore[reportArgumentType]
    flood.adopt(losses)
    return flood


class Asked(Ada):
    """Keeps the rows that it was asked for, each batch's once."""

    def __init__(self, **options: float) -> None:
        super().__init__(**options)  # pyright: ignore[reportArgumentType]
        self.rows: list[list[int]] = []

    def slope(self, loss: Tensor, batch: Batch | None = None) -> Tensor:
        assert batch is not None and loss.shape == batch["index"].shape
        if self.rows[-1:] != [batch["index"].tolist()]:
            self.rows.append(batch["index"].tolist())
        return super().slope(loss, batch)


def trained(name: str, flood: Flood, epochs: int = 1, resume: str | None = None) -> Run:
    """By a method under this flood; the last batch of an epoch is a step by itself."""
    task = Floodable(MeanPool(width=16, bend=True, dropout=0.1))
    descent = sgd(flood=flood, accumulate_grad_batches=STEPS - 1)
    return fit(METHODS[name](task, descent), numbered(), epochs=epochs, resume=resume)


@pytest.mark.parametrize("name", METHODS)
def test_equal_levels_are_the_individual_flood_bit_for_bit(name: str):
    equal = Asked(gamma=0.0)
    equal.adopt(torch.full((STEPS * SIZE,), 0.75))
    runs = [trained(name, flood) for flood in (equal, Individual(0.75))]
    assert equal.rows == [batch["index"].tolist() for batch in numbered()]
    assert 0 < sum(log.get("flood/share", 0.0) for log in runs[0].logs) < 2
    same(runs[0].weights, runs[1].weights)
    assert runs[0].logs == runs[1].logs


@pytest.mark.parametrize("name", ["finetune", "freelb", "smart"])
def test_full_correction_is_plain_training_bit_for_bit(name: str):
    zero = ada(torch.linspace(0, 9, STEPS * SIZE), gamma=1.0)
    same(trained(name, zero).weights, trained(name, NoFlood()).weights)


@pytest.mark.parametrize("accumulate", [1, STEPS])
def test_every_example_has_the_level_of_its_row(accumulate: int):
    network, data = MeanPool(), numbered()
    flood = ada(torch.rand(STEPS * SIZE, generator=torch.Generator().manual_seed(1)), gamma=0.1)
    assert flood.levels is not None
    floods = [flood.levels[batch["index"]] for batch in data]
    wanted = [
        ((loss(network, batch) - b).abs() + b).mean() for batch, b in zip(data, floods, strict=True)
    ]
    wanted = wanted if accumulate == 1 else [torch.stack(wanted).mean()]
    gradients = [derivative(each, network) for each in wanted]
    descent = sgd(lr=0.0, flood=flood, accumulate_grad_batches=accumulate)
    run = fit(METHODS["finetune"](Floodable(network), descent), data)
    close(run.gradients, gradients)
    sides = torch.cat([loss(network, batch) < b for batch, b in zip(data, floods, strict=True)])
    assert 0 < sides.sum() < len(sides)
    shares = [log["flood/share"] for log in run.logs if "flood/share" in log]
    wanted_share = sides[-SIZE:] if accumulate == 1 else sides
    assert shares[-1] == pytest.approx(wanted_share.double().mean().item())


@pytest.mark.parametrize(
    "flood, data, said",
    [
        (Ada(), numbered, "flood=ada: no levels yet"),
        (ada(torch.ones(STEPS * SIZE)), batches, 'flood=ada: a batch needs "index"'),
    ],
)
def test_without_levels_or_rows_it_says_what_is_missing(
    flood: Ada, data: Callable[[], list[Tensors]], said: str
):
    with pytest.raises(ValueError, match=said):
        fit(METHODS["finetune"](Floodable(MeanPool()), sgd(flood=flood)), data())


# ---- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided")
def test_a_resumed_training_takes_its_levels_from_the_checkpoint(tmp_path: Path):
    auxiliary = torch.linspace(0, 3, STEPS * SIZE)
    whole = trained("freelb", ada(auxiliary), epochs=2)
    trained("freelb", ada(auxiliary)).trainer.save_checkpoint(tmp_path / "half.ckpt")
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)["lit_adv"]["flood"]
    same(saved, {"levels": levels(auxiliary)})
    rest = Ada()
    resumed = trained("freelb", rest, epochs=2, resume=str(tmp_path / "half.ckpt"))
    same(resumed.weights, whole.weights)
    assert rest.levels is not None
    same(rest.levels, levels(auxiliary))
