"""Batches however they are nested: their examples, some of them, and their way to a checkpoint."""

from collections import UserDict
from typing import Any, NamedTuple

import pytest
import torch
from testbed import same
from torch import Tensor

from lit_adv.nested import on_device, on_host, size, some


class Both(NamedTuple):
    """Two fields."""

    x: Tensor
    y: Tensor


X, Y = torch.arange(8.0).view(4, 2), torch.tensor([1, 0, 2, 1])


def test_rows_are_taken_of_all_tensors_with_a_row_for_each_example():
    other = torch.ones(3)
    batch = {"x": X, "more": [Y, (X, other)], "text": "four", "none": None, "scale": torch.ones(())}
    found = some(batch, [2, 0], 4)
    same(found["x"], X[[2, 0]])
    same(found["more"][0], Y[[2, 0]])
    same(found["more"][1][0], X[[2, 0]])
    assert found["more"][1][1] is other and found["scale"] is batch["scale"]
    assert found["text"] == "four" and found["none"] is None


def test_containers_stay_what_they_are():
    assert isinstance(some((X, Y), [1], 4), tuple) and isinstance(some([X, Y], [1], 4), list)
    named = some(Both(X, Y), [1, 3], 4)
    assert isinstance(named, Both)
    same(named.y, torch.tensor([0, 1]))
    same(some(UserDict({"x": X}), [1], 4), {"x": X[1:2]})


@pytest.mark.parametrize("batch", [
    X, [X], {"a": "text", "b": torch.ones(()), "x": X}, (None, [Both(X, Y)]), UserDict({"x": X}),
])  # fmt: skip
def test_the_first_tensor_counts_the_examples(batch: Any):
    assert size(batch) == 4


@pytest.mark.parametrize("batch", ["text", [], {"a": None}, torch.ones(()), 3])
def test_without_a_tensor_there_is_no_number_of_examples(batch: Any):
    with pytest.raises(ValueError, match="no tensor that counts its examples"):
        size(batch)


def test_a_checkpoint_holds_plain_containers_on_the_host():
    there = on_host({"a": (X.requires_grad_(), [Y]), "b": UserDict({1: 2.0})})
    X.requires_grad_(False)
    assert type(there["a"]) is list and type(there["b"]) is dict
    assert not there["a"][0].requires_grad
    back = on_device(there, torch.device("meta"))
    assert back["a"][0].is_meta and back["a"][1][0].is_meta and back["b"] == {1: 2.0}
