"""F1 of whole entities, against entities counted by hand."""

import pytest
import torch
from torch import Tensor

from lit_adv.tasks.entity_f1 import EntityF1

NAMES = ("O", "B-x", "I-x", "B-y", "I-y")


def _tags(*rows: str) -> Tensor:
    """One letter a word: . for O, x and y for the first words, X and Y for the others, - for none.

    >>> _tags("x-")
    tensor([[   1, -100]])
    """
    places = {".": 0, "x": 1, "X": 2, "y": 3, "Y": 4, "-": -100}
    return torch.tensor([[places[letter] for letter in row] for row in rows])


def _score(predicted: Tensor, labels: Tensor) -> tuple[float, float, float]:
    values = []
    for of in ("precision", "recall", "f1"):
        metric = EntityF1(NAMES, of)
        metric.update(predicted, labels)
        values.append(float(metric.compute()))
    return values[0], values[1], values[2]


@pytest.mark.parametrize(
    ("predicted", "labels", "right", "found", "there"),
    [
        (".xX.y", ".xX.y", 2, 2, 2),
        (".x..y", ".xX.y", 1, 2, 2),  # an end that is wrong
        (".yY.y", ".xX.y", 1, 2, 2),  # a kind that is wrong
        (".xx.y", ".xX.y", 1, 3, 2),  # two where one is
        (".XX.y", ".xX.y", 2, 2, 2),  # I without B begins one, as for conlleval
        (".xY.y", ".xX.y", 1, 3, 2),  # I of another kind begins one
        (".....", ".xX.y", 0, 0, 2),
        ("xX...", ".....", 0, 1, 0),
        ("xXx.y", "-Xx-y", 3, 3, 3),  # what has no label is no word, whatever is said of it
    ],
)
def test_an_entity_counts_where_all_of_it_is_right(
    predicted: str, labels: str, right: int, found: int, there: int
):
    precision, recall, f1 = _score(_tags(predicted), _tags(labels))
    assert precision == pytest.approx(right / max(found, 1))
    assert recall == pytest.approx(right / max(there, 1))
    assert f1 == pytest.approx(2 * right / max(found + there, 1))


def test_entities_do_not_reach_over_the_ends_of_examples():
    assert _score(_tags("..x", "X.."), _tags("..x", "X..")) == (1, 1, 1)
    metric = EntityF1(NAMES)
    metric.update(_tags("..x", "X.."), _tags("..x", "X.."))
    assert metric.there == 2


def test_batches_and_processes_are_added_up():
    whole, first, second = (EntityF1(NAMES) for _ in range(3))
    predicted, labels = _tags(".xX", "y.x"), _tags(".xX", "yYx")
    whole.update(predicted, labels)
    first.update(predicted[:1], labels[:1])
    second.update(predicted[1:], labels[1:])
    first.merge_state(second)
    assert first.compute() == whole.compute() == pytest.approx(2 * 2 / 6)


def test_a_name_that_is_no_tag_is_refused():
    with pytest.raises(ValueError, match="NOUN is no tag of entities"):
        EntityF1(["O", "NOUN"])
