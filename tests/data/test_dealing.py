"""Several processes share the batches of one: every row once, as many batches for each."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from testbed import without_lightnings_own_warnings

from lit_adv.data.batches import SharedBatches
from lit_adv.data.reviews import Reviews
from lit_adv.models.tiny import build

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

LENGTHS = np.random.default_rng(0).integers(3, 60, size=1003)

ROWS = (8, 9, 31, 64, 65, 66, 67, 96, 100, 1003)
SIZES = (1, 2, 3, 32)
WORLDS = (1, 2, 3, 4, 7, 8)

cases = pytest.mark.parametrize(
    "size, world, shuffle", [(s, w, shuffle) for s in SIZES for w in WORLDS for shuffle in (0, 1)]
)


def dealt(rows: int, size: int, world: int, **options: Any) -> list[list[list[int]]]:
    """The batches of every process."""
    samplers = [
        SharedBatches(LENGTHS[:rows], size, num_replicas=world, rank=rank, **options)
        for rank in range(world)
    ]
    made = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(batches) for batches in made]
    return made


def together(made: list[list[list[int]]]) -> list[list[list[int]]]:
    """The parts of each batch."""
    return [list(parts) for parts in zip(*made, strict=True)]


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


# ---- samplers ------------------------------------------------------------------------------------


@cases
def test_all_rows_come_once_in_as_many_batches_of_nearly_as_many_rows(
    size: int, world: int, shuffle: bool
):
    for rows in ROWS:
        made = dealt(rows, size, world, shuffle=shuffle, pool=3)
        assert sorted(row for batches in made for row in flat(batches)) == list(range(rows))
        assert len(made[0]) > 0
        for parts in together(made):
            sizes = [len(part) for part in parts]
            assert 1 <= min(sizes) <= max(sizes) <= max(size, 2) and max(sizes) - min(sizes) <= 1


@cases
def test_together_they_are_the_batches_of_one_process(size: int, world: int, shuffle: bool):
    options: dict[str, Any] = {"shuffle": shuffle, "pool": 3, "seed": 5}
    for rows in ROWS:
        (alone,) = dealt(rows, size * world, 1, **options)
        shared = [flat(parts) for parts in together(dealt(rows, size, world, **options))]
        if 0 < rows % (size * world) < world:  # the last batch has too few rows for all
            del shared[len(alone) - 2 :], alone[-2:]
        assert [sorted(batch) for batch in shared] == [sorted(batch) for batch in alone]


def test_a_last_batch_with_too_few_rows_gets_some_of_the_one_before():
    assert [[len(part) for part in parts] for parts in together(dealt(66, 8, 4))] == [
        [8, 8, 8, 8],
        [8, 8, 7, 7],
        [1, 1, 1, 1],
    ]


def test_at_one_row_per_process_it_joins_the_one_before():
    assert [[len(part) for part in parts] for parts in together(dealt(11, 1, 4))] == [
        [1, 1, 1, 1],
        [2, 2, 2, 1],
    ]


def test_the_parts_of_a_batch_are_of_like_lengths():
    for parts in together(dealt(1003, 8, 4)):
        means = [LENGTHS[part].mean() for part in parts]
        assert max(means) - min(means) < 3
    by_chance = np.random.default_rng(1).permutation(1003)[:32].reshape(4, 8)
    assert np.ptp(LENGTHS[by_chance].mean(1)) > 3


def test_every_epoch_is_dealt_anew():
    sampler = SharedBatches(LENGTHS, 8, num_replicas=4, rank=1)
    first = flat(list(sampler))
    sampler.set_epoch(1)
    assert flat(list(sampler)) != first


@pytest.mark.parametrize("shuffle", [True, False])
def test_fewer_rows_than_processes_are_refused(shuffle: bool):
    message = (
        "trainer.devices=4: a split has 3 rows, not one for each process; set 3 or fewer, or give "
        "more rows"
    )
    with pytest.raises(ValueError) as refused:
        dealt(3, 2, 4, shuffle=shuffle)
    assert str(refused.value) == message


@pytest.mark.parametrize("count", [1, 5, 13, 40])
def test_a_number_of_batches_breaks_off_or_begins_anew(count: int):
    (once,) = dealt(100, 8, 1)
    assert dealt(100, 8, 1, count=count) == [(once * 4)[:count]]


# ---- Lightning -----------------------------------------------------------------------------------

TRAIN, BESIDE, HELD_OUT = 23, 5, 11


def reviews(folder: Path, size: int = 3) -> Reviews:
    """The embedded data, with a few texts beside them."""
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"good {row}"}) + "\n" for row in range(BESIDE)))
    data = Reviews(
        train_size=TRAIN,
        validation_size=HELD_OUT,
        test_size=HELD_OUT,
        batch_size=size,
        eval_batch_size=3,
        cache=str(folder),
        unlabelled=str(path),
    )
    data.tokenise(build(data.splits, width=8, heads=2, max_tokens=64).tokenizer)
    return data


class Watching(L.LightningModule):
    """Trains nothing; writes down which rows this process gets."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.weight = torch.nn.Linear(1, 1)
        self.automatic_optimization = False
        self.folder = folder
        self.seen: dict[str, list[list[int]]] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def note(self, name: str, batch: Any) -> None:
        """Into a file: what a process keeps in memory ends with it."""
        self.seen.setdefault(name, []).append(batch["index"].tolist())
        (self.folder / f"{name}.{self.global_rank}").write_text(json.dumps(self.seen[name]))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.note(f"train_{self.current_epoch}", batch)
        if "unlabelled" in batch:
            self.note(f"beside_{self.current_epoch}", batch["unlabelled"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.note(f"validate_{self.current_epoch}", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.note("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> list[int]:
        self.note("predict", batch)
        return batch["index"].tolist()

    def of(self, name: str) -> list[list[list[int]]]:
        """The batches of all processes."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob(f"{name}.*"))]


def trainer_of(processes: int, *callbacks: L.Callback) -> L.Trainer:
    """A trainer of so many real processes."""
    if processes > 1 and torch.cuda.is_initialized():
        pytest.skip("a process with CUDA cannot be forked")
    return L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=processes,
        strategy="auto" if processes == 1 else "ddp_fork",
        callbacks=list(callbacks),
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_two_real_processes_share_every_split(tmp_path: Path):
    data, module = reviews(tmp_path), Watching(tmp_path)
    with without_lightnings_own_warnings():
        trainer = trainer_of(2)
        trainer.fit(module, datamodule=data)
        trainer.test(module, datamodule=data, verbose=False)
    for name, rows in (
        ("train_0", TRAIN),
        ("train_1", TRAIN),
        ("validate_0", HELD_OUT),
        ("test", HELD_OUT),
    ):
        one, other = module.of(name)
        assert sorted(flat(one) + flat(other)) == list(range(rows)), name
        assert len(one) == len(other) == -(-rows // 6), name
    assert module.of("train_0") != module.of("train_1")
    for epoch in (0, 1):
        one, other = module.of(f"beside_{epoch}")
        assert len(one) == len(other) == 4  # as many as of the labelled
        times = [(flat(one) + flat(other)).count(row) for row in range(BESIDE)]
        assert min(times) == max(times) == 4


def test_loaders_given_by_themselves_are_dealt_out_by_lightning(tmp_path: Path):
    data, module = reviews(tmp_path), Watching(tmp_path)
    with without_lightnings_own_warnings():
        trainer = trainer_of(2)
        trainer.fit(module, data.some(range(18), shuffled=True))
        trainer.predict(module, data.test_dataloader(), return_predictions=False)
    for name, rows in (("train_0", 18), ("predict", HELD_OUT)):
        one, other = module.of(name)
        assert sorted(flat(one) + flat(other)) == list(range(rows)), name


def test_predictions_are_of_all_rows(tmp_path: Path):
    data, module, trainer = reviews(tmp_path), Watching(tmp_path), trainer_of(1)
    data.trainer = trainer
    with without_lightnings_own_warnings():
        made = trainer.predict(module, data.test_dataloader())
    assert made is not None and sorted(sum(made, [])) == list(range(HELD_OUT))


class Save(L.Callback):
    """Writes a checkpoint after three of the first epoch's four batches."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if trainer.current_epoch == 0 and batch_idx == 2:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("processes, size", [(2, 3), (1, 6)])
def test_as_many_or_fewer_processes_go_on_inside_an_epoch(
    processes: int, size: int, tmp_path: Path
):
    folders = tmp_path / "whole", tmp_path / "rest"
    for folder in folders:
        folder.mkdir()
    whole, rest = map(Watching, folders)
    path = tmp_path / "interrupted.ckpt"
    with without_lightnings_own_warnings():
        trainer_of(2, Save(path)).fit(whole, datamodule=reviews(tmp_path))
        trainer_of(processes).fit(rest, datamodule=reviews(tmp_path, size), ckpt_path=path)
    for name in ("train_0", "train_1", "beside_0", "beside_1"):
        made, left = ([sorted(flat(p)) for p in together(m.of(name))] for m in (whole, rest))
        assert len(made) == 4 and left == (made[3:] if name.endswith("0") else made), name
