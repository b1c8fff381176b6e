"""A token that a network has no vector for is refused by name."""

from typing import Any

import pytest

from lit_adv import vocabulary
from lit_adv.data.reviews import Reviews
from lit_adv.models import tiny


def test_a_token_beyond_the_networks_vectors_is_named():
    data = Reviews(train_size=20, validation_size=4, test_size=4)
    model = tiny.build(data.splits, width=16, heads=2, layers=1, vocabulary=300)
    tokenizer: Any = model.tokenizer
    data.adapt(model)  # it has them all
    last = len(tokenizer) - 1
    vocabulary.check(model.network, tokenizer, last)
    with pytest.raises(ValueError, match=rf"as token {last + 1} \(a text's\), .* for {last + 1};"):
        vocabulary.check(model.network, tokenizer, last + 1)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    with pytest.raises(ValueError, match=r"tokenizer writes <pad> as token \d+ \(its padding\)"):
        data.adapt(model)
    model.network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    data.adapt(model)
