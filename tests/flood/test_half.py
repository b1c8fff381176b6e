"""Flooding at half the loss that a run without flooding turned at."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from commandline import SMALL, refusal, train
from logs import written
from testbed import METHODS, Floodable, MeanPool, Run, batches, fit, same, sgd
from torch import Tensor

from lit_adv.flood.fixed import Fixed
from lit_adv.flood.flood import Flood
from lit_adv.flood.half import Half
from lit_adv.flood.none import NoFlood

Scope = Literal["global", "micro"]
SCOPES: tuple[Scope, ...] = ("global", "micro")


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.5, 1.0])
def test_the_level_is_the_factor_times_the_training_loss_at_the_turn(factor: float, tmp_path: Path):
    flood = Half(str(written(tmp_path)), factor)
    assert flood.turn.step == 7
    assert flood.level == flood.b == factor * flood.turn.training_loss
    assert flood.level == pytest.approx(factor * 0.35)


def trained(name: str, flood: Flood) -> Run:
    """Three steps of two micro-batches each."""
    task = Floodable(MeanPool(width=16, bend=True, dropout=0.1))
    descent = sgd(flood=flood, accumulate_grad_batches=2)
    return fit(METHODS[name](task, descent), batches(6))


def logged(run: Run, folder: Path) -> str:
    """The folder of a run that logged twice these losses, so that half of it is their mean."""
    rows = [f"{step} {2 * log['train/loss']!r} -" for step, log in enumerate(run.logs[1::2])]
    table = "\n".join(["step train/loss val/loss", *rows, "2 - 0.5", "3 - 0.6"])
    return str(written(folder, table))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["finetune", "fgm", "freelb", "smart"])
def test_it_is_a_fixed_flood_of_that_level_bit_for_bit(name: str, scope: Scope, tmp_path: Path):
    dry = trained(name, NoFlood())
    half = Half(logged(dry, tmp_path), scope=scope)
    wet, fixed = trained(name, half), trained(name, Fixed(half.b, scope))
    same(wet.weights, fixed.weights)
    assert wet.logs == fixed.logs
    assert any(log.get("flood/share", 0.0) > 0 for log in wet.logs)
    assert not all(torch.equal(w, dry.weights[key]) for key, w in wet.weights.items())


def test_of_factor_zero_it_is_plain_training_bit_for_bit(tmp_path: Path):
    dry = trained("freelb", NoFlood())
    same(trained("freelb", Half(logged(dry, tmp_path), factor=0.0)).weights, dry.weights)


@pytest.mark.parametrize("factor", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_factor_that_is_no_share_is_refused(factor: float, tmp_path: Path):
    with pytest.raises(ValueError, match=rf"^flood.factor={factor}: needs to lie in \[0, 1\]"):
        Half(str(written(tmp_path)), factor)


def test_an_unknown_scope_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="flood.scope=rank: choose one of global, micro"):
        Half(str(written(tmp_path)), scope="rank")  # pyright: ignore[reportArgumentType]


# ---- the command line ----------------------------------------------------------------------------

# Its labels are drawn by lot: all that can be learnt is the training set by heart.
BY_HEART = [*SMALL, "data.label_noise=0.5", "trainer.max_epochs=12", "optimizer.lr=1e-2"]


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without flooding that overfits."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    with pytest.MonkeyPatch.context() as patch:
        train(patch, folder, *BY_HEART)
    return folder


def end(folder: Path) -> dict[str, Tensor]:
    """The last weights of a run."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_floods_at_half_the_loss_that_another_turned_at(
    turned: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    drawn: list[Any] = []
    monkeypatch.setattr("lit_adv.curves.draw", lambda *_, level, **__: drawn.append(level))
    train(monkeypatch, tmp_path / "half", *BY_HEART, "flood=half", f"flood.run={turned}")
    level = Half(str(turned)).level
    assert drawn == [level] and level is not None and 0.01 < level < 0.5
    train(monkeypatch, tmp_path / "fixed", *BY_HEART, "flood=fixed", f"flood.b={level!r}")
    metrics = [(tmp_path / name / "metrics.csv").read_text() for name in ("half", "fixed")]
    assert metrics[0] == metrics[1] != (turned / "metrics.csv").read_text()
    same(end(tmp_path / "half"), end(tmp_path / "fixed"))


def test_what_does_not_say_where_it_turned_is_refused_in_one_line(
    turned: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
):
    train(monkeypatch, tmp_path / "still", *SMALL, "optimizer.lr=0")
    train(monkeypatch, tmp_path / "wet", *SMALL, "flood=half", f"flood.run={turned}")
    for name, said in (
        ("nowhere", "no such folder"),
        ("still", "the validation loss never turned"),
        ("wet", "it was flooded itself, by lit_adv.flood.half.Half"),
    ):
        run = f"flood.run={tmp_path / name}"
        line = refusal(monkeypatch, capsys, tmp_path / "run", *SMALL, "flood=half", run)
        assert line.startswith(f"{run}: {said}")
    line = refusal(monkeypatch, capsys, tmp_path / "run", *SMALL, "flood=half")
    assert line == "flood.run: needs a value; set flood.run=..."
