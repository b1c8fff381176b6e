"""TrainingLoader: batches that go on inside an epoch, where a checkpoint was written."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_adv.data.batches import LengthGroupedBatches


class TrainingLoader(DataLoader[Any]):
    """A DataLoader that knows from Lightning which batch of which epoch is wanted first.

    It asks when its first batch is asked for, and starts its workers only then: the iterator itself
    is made while Lightning has neither told the epoch nor set its counters right. The first
    iterator after `load_state_dict`, which Lightning calls if it resumes, goes on; all others begin
    at the beginning.

    Args:
        dataset: gives a batch for its rows.
        sampler: which rows these are.
        place: the epoch, and how many of its batches are done; None = not in training.
        options: of a DataLoader.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        sampler: LengthGroupedBatches,
        place: Callable[[], tuple[int, int] | None],
        **options: Any,
    ) -> None:
        super().__init__(dataset, sampler=sampler, **options)
        self.place = place
        self._batches = sampler
        self._left: dict[str, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """The order of the batches; how many of them are done, Lightning's own counters say."""
        return self._batches.order

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iterator goes on in this order, where Lightning stands."""
        self._left = state

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        left, self._left = self._left, None
        return self._from(left)

    def _from(self, left: dict[str, int] | None) -> Iterator[dict[str, Tensor]]:
        place = self.place()
        if place is not None:
            epoch, done = place
            # Not as told by `set_epoch`: after Lightning has resumed at the end of an epoch under
            # `max_steps`, that is one too many.
            self._batches.set_epoch(epoch)
            if left is not None:
                self._check(left, done)
                self._batches.first = done
        batches = super().__iter__()
        self._batches.first = 0
        yield from batches

    def _check(self, left: dict[str, int], done: int) -> None:
        here = self._batches.order
        if left != here and 0 < done < len(self):
            raise ValueError(
                f"ckpt_path: its epoch is not over, and goes on with {_said(left)}, not with "
                f"{_said(here)}; set these, or take a checkpoint from the end of an epoch"
            )


def _said(order: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in order.items())
