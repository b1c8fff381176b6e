"""Where a run turned, read from its metrics.csv."""

import math
import random
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from logs import CHOSEN, TURNED, written

from lit_adv import config, turn
from lit_adv.turn import Rows, Turn


def found(folder: Path, table: str = TURNED, chosen: str | None = CHOSEN) -> Turn:
    """The turn of a run that logged this."""
    return turn.read(written(folder / "run", table, chosen), turn.find)


def targets() -> dict[str, str]:
    """The class behind every choice of flood."""
    names = [path.stem for path in (config.folder() / "flood").glob("*.yaml")]
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        chosen = {name: compose("train", [f"flood={name}", "output_dir=."]) for name in names}
    return {name: cfg.flood["_target_"] for name, cfg in chosen.items()}


TARGETS = targets()

# ---- the turn ------------------------------------------------------------------------------------


def test_it_is_the_lowest_validation_and_the_mean_training_loss_since_the_one_before(
    tmp_path: Path,
):
    assert found(tmp_path) == Turn(7, 0.4, 0.35, 1)


def test_where_the_first_validation_is_the_lowest_training_counts_from_the_start(tmp_path: Path):
    table = TURNED.replace("0.65", "0.25")
    assert found(tmp_path, table) == Turn(3, 0.25, 0.7, 0)


def test_of_the_rows_of_one_step_the_last_counts(tmp_path: Path):
    """Where batches are accumulated the first row of a step repeats the step before."""
    stale = "    7    1     0.50       -\n"
    before, row, after = TURNED.partition("    7    1     0.20")
    assert found(tmp_path, before + stale + row + after) == found(tmp_path / "plain")


def test_values_that_are_not_numbers_count_for_nothing(tmp_path: Path):
    odd = """
    6    1     nan        -
    6    1     -          nan
    6    1     inf        -
    12   3     -          nan
    13   3     -          inf
    14   3     -          -inf
    """
    assert found(tmp_path, TURNED.rstrip() + odd) == found(tmp_path / "plain")


def test_a_validation_loss_that_only_becomes_nan_has_not_turned(tmp_path: Path):
    with pytest.raises(ValueError, match=r"0.4 at step 7, is the lowest; train longer"):
        found(tmp_path, TURNED.replace("0.55", "nan"))


def test_of_equal_validations_the_last_is_the_turn(tmp_path: Path):
    flat = TURNED.replace("0.65", "0.40")
    assert found(tmp_path, flat).step == 7
    with pytest.raises(ValueError, match="0.4 at step 11, is the lowest; train longer"):
        found(tmp_path, flat.replace("0.55", "0.40"))


def test_the_epoch_is_the_last_one_logged_by_then(tmp_path: Path):
    table = TURNED.replace("7    1     - ", "7    -     - ")
    assert found(tmp_path, table).epoch == 1
    rows: Rows = [{"step": "2", "val/loss": "1"}]
    assert turn.epoch(rows, 2) == 0


@pytest.mark.parametrize("seed", range(30))
def test_it_is_what_walking_through_the_rows_finds(seed: int):
    draw = random.Random(seed)
    every, best, wanted = draw.choice([1, 3]), math.inf, None
    rows: Rows = []
    losses: list[float] = []
    for step in range(60):
        row = {"epoch": str(step // 20), "step": str(step)}
        if step % every == 0:
            losses.append(draw.random())
            rows.append({**row, "train/loss": repr(losses[-1])})
        if step == 59 or (losses and draw.random() < 0.2):
            validation = 2.0 if step == 59 else draw.random()
            rows.append({**row, "val/loss": repr(validation)})
            if validation < best:
                best, mean = validation, math.fsum(losses) / len(losses)
                wanted = Turn(step, validation, mean, step // 20)
            losses = []
    assert turn.find(rows) == wanted


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (TURNED.replace("val/loss", "val/beauty"), "no val/loss in its metrics.csv"),
        (TURNED.replace("train/loss", "loss/clean"), r"no train/loss .*log_every_n_steps=1$"),
        (
            TURNED.replace("0.40", "-"),
            "never turned: .* 0.55 at step 11, is the lowest; train longer$",
        ),
        (
            TURNED.replace("0.50", "-").replace("0.20", "-"),
            "no train/loss was logged after step 3 until step 7; train with a lower trainer.log",
        ),
        ("step epoch train/loss val/loss", "no val/loss in its metrics.csv"),
    ],
)
def test_a_log_without_a_turn_is_refused_by_its_name(table: str, said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=f"^flood.run={tmp_path / 'run'}: .*{said}"):
        found(tmp_path, table)


def test_a_folder_that_is_no_runs_is_refused(tmp_path: Path):
    for name, said in (("nowhere", "no such folder"), ("empty", "no metrics.csv in it; .*csv$")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match=f"^flood.run={tmp_path / name}: {said}"):
            turn.read(tmp_path / name, turn.find)


@pytest.mark.parametrize("choice", sorted(TARGETS.keys() - {"none"}))
def test_a_run_that_was_flooded_says_nothing_of_a_level(choice: str, tmp_path: Path):
    target = TARGETS[choice]
    with pytest.raises(ValueError, match=f"run: it was flooded itself, by {target}, .*flood=none$"):
        found(tmp_path, chosen=f"flood:\n  _target_: {target}\n")


def test_a_run_without_flooding_or_from_ones_own_code_is_read(tmp_path: Path):
    for chosen in (f"flood:\n  _target_: {TARGETS['none']}\n", "seed: 0\n", None):
        assert found(tmp_path / str(chosen), chosen=chosen).step == 7
