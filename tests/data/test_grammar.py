"""The generated reviews say what their labels say."""

import re
from random import Random

import pytest

from lit_adv.data import grammar
from lit_adv.data.reviews import Reviews

PRAISE = {word for good, _ in grammar.JUDGEMENTS.values() for word in good}
PRAISE |= {word for pair in (grammar.LIKING, grammar.LIKING_PLAIN) for word in pair[0]}
BLAME = {word for _, bad in grammar.JUDGEMENTS.values() for word in bad}
BLAME |= {word for pair in (grammar.LIKING, grammar.LIKING_PLAIN) for word in pair[1]}
TURNS = re.compile(r"\b(not|never|hardly|anything but|far from)\b")
CLAUSE = re.compile(r"\b(the [a-z ]+? (was|seemed|felt|proved)|i (did not )?[a-z]+ the)\b")


def read(text: str) -> int:
    """A reader of its own: the sentiment word of the last clause, turned by a negation there."""
    last = text[[match.start() for match in CLAUSE.finditer(text)][-1] :]
    (said,) = [word for word in last.split() if word in PRAISE | BLAME]
    return int((said in PRAISE) != bool(TURNS.search(last)))


def test_an_independent_reader_agrees_with_every_label():
    random = Random(0)
    for _ in range(5000):
        text, label = grammar.review(random)
        assert read(text) == label, text


def test_there_are_more_than_fifty_thousand_distinct_texts():
    random = Random(1)
    assert len({grammar.review(random)[0] for _ in range(60_000)}) > 50_000


def test_labels_are_balanced_and_the_first_clause_often_misleads():
    random = Random(2)
    reviews = [grammar.review(random) for _ in range(4000)]
    assert 0.47 < sum(label for _, label in reviews) / len(reviews) < 0.53
    contrasts = [
        t for t, _ in reviews if re.search(r"\b(but|yet|still|although|while|though)\b", t)
    ]
    assert len(contrasts) > 1000


def test_exchanging_synonyms_never_changes_what_is_said():
    random = Random(3)
    groups = [group for group in grammar.synonyms() if set(group) <= PRAISE | BLAME]
    assert {word for group in groups for word in group} == PRAISE | BLAME
    for _ in range(1000):
        text, label = grammar.review(random)
        for group in groups:
            for word in group:
                text = re.sub(rf"\b{word}\b", random.choice(group), text)
        assert read(text) == label


def test_no_word_praises_and_blames():
    assert not PRAISE & BLAME


def test_the_same_seed_gives_the_same_splits_and_they_share_no_text():
    first, again, other = (Reviews(seed=seed).splits for seed in (0, 0, 1))
    assert first == again
    assert first.train.texts != other.train.texts
    texts = [text for _, split in first.items() for text in split.texts]
    assert len(set(texts)) == len(texts) == 5000


def test_wrong_labels_stand_in_the_training_split_only_and_are_as_many_as_said():
    splits = Reviews(label_noise=0.1).splits
    wrong = {
        name: sum(
            read(text) != label for text, label in zip(split.texts, split.labels, strict=True)
        )
        for name, split in splits.items()
    }
    assert wrong == {"train": 200, "validation": 0, "test": 0}


@pytest.mark.parametrize("noise", [-0.1, 0.6])
def test_a_share_of_wrong_labels_outside_its_range_is_refused(noise: float):
    with pytest.raises(ValueError, match=f"data.label_noise={noise}"):
        Reviews(label_noise=noise)
