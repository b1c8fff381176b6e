"""A small random victim, and data that it gets right."""

from typing import Any

import numpy as np
import torch

from lit_adv.attacks.resources import Resources
from lit_adv.attacks.session import Session
from lit_adv.attacks.settings import Settings
from lit_adv.data.reviews import Reviews
from lit_adv.models import tiny
from lit_adv.models.model import Model


def build(size: int = 24) -> tuple[Model, Reviews]:
    """A victim whose answers depend on the words, and reviews labelled by what it says."""
    torch.manual_seed(3)
    data = Reviews(train_size=40, validation_size=24, test_size=size, max_length=200)
    model = tiny.build(data.splits, width=16, heads=2, layers=1, vocabulary=300)
    head: Any = model.network.classifier
    head.weight.data.mul_(30)
    session = Session(model.network, model.tokenizer, data, Settings(precision="32"), Resources())
    for split in (data.splits.validation, data.splits.test):
        texts = session.exact.keys(split.texts)
        logits = np.stack(session.exact.answer(texts))
        # Centred, or a random network would say one class to all.
        head.bias.data -= torch.from_numpy(logits.mean(0))
        logits = np.stack(session.exact.answer(texts))
        split.labels[:] = logits.argmax(1).tolist()
    first = data.splits.validation
    first.labels[:] = (
        np.stack(session.exact.answer(session.exact.keys(first.texts))).argmax(1).tolist()
    )
    return model, data


def session(model: Model, data: Reviews, **settings: Any) -> Session:
    """Attacks on all test reviews, in full precision unless said otherwise."""
    options = {"n": 1000, "precision": "32", "calibrate": False, **settings}
    return Session(model.network, model.tokenizer, data, Settings(**options), Resources())
