"""A small network and two random batches for every task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from testbed import WORDS, Tensors
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMultipleChoice,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
)

from lit_adv.models.convolutional import Convolutional
from lit_adv.models.mlp import MLP
from lit_adv.tasks.causal_lm import CausalLM
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.contrastive import Contrastive
from lit_adv.tasks.multi_label import MultiLabel
from lit_adv.tasks.multiple_choice import MultipleChoice
from lit_adv.tasks.place import Pixels
from lit_adv.tasks.regression import Regression
from lit_adv.tasks.task import Task
from lit_adv.tasks.token_classification import TokenClassification

TAGS = ("O", "B-x", "I-x", "B-y", "I-y")
SIZE, TOKENS = 4, 7


@dataclass(frozen=True)
class Subject:
    """A task, and how its batches are made."""

    build: Callable[[float], Task]
    """From the probability of dropout."""
    batch: Callable[[torch.Generator], Tensors]
    words: bool = True
    """Whether it perturbs words of a table."""
    separable: bool = True
    """Whether an example's loss is its own."""


def batches(name: str, count: int = 2, seed: int = 0) -> list[Tensors]:
    """Random ones for this task."""
    stream = torch.Generator().manual_seed(seed)
    return [SUBJECTS[name].batch(stream) for _ in range(count)]


def config(dropout: float, **options: Any) -> BertConfig:
    """Of a small BERT, with weights large enough for its losses to differ."""
    torch.manual_seed(1)
    return BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
        **options,
    )


def gpt2(dropout: float) -> GPT2LMHeadModel:
    """A small decoder, whose head shares the table of its words."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"vocab_size": WORDS, "n_positions": 32, "n_embd": 16}
    sizes |= {"n_layer": 2, "n_head": 2}
    drops: dict[str, Any] = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    network = GPT2LMHeadModel(
        GPT2Config(**sizes, **drops, initializer_range=0.3, bos_token_id=1, eos_token_id=2)
    )
    return network.double()


def vit(dropout: float) -> ViTForImageClassification:
    """A small vision transformer of four patches."""
    torch.manual_seed(1)
    sizes = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=dropout,
        image_size=4,
        patch_size=2,
        num_channels=1,
        initializer_range=0.3,
    )
    sizes.num_labels = 3
    return ViTForImageClassification(sizes).double()


def dropping(network: nn.Module, dropout: float) -> nn.Module:
    """With dropout in front of the head."""
    torch.manual_seed(1)
    head: Any = network.head
    network.head = nn.Sequential(nn.Dropout(dropout), head)
    return network.double()


def mlp(dropout: float) -> nn.Module:
    """Over 16 pixels."""
    torch.manual_seed(1)
    return dropping(MLP(16, 3, width=12, layers=2), dropout)


def convolutional(dropout: float) -> nn.Module:
    """Over 4 x 4 pixels."""
    torch.manual_seed(1)
    return dropping(Convolutional((1, 4, 4), 3, width=4), dropout)


def texts(stream: torch.Generator, *shape: int) -> Tensors:
    """Random words, of random lengths."""
    lengths = torch.randint(3, TOKENS + 1, (*shape, 1), generator=stream)
    lengths.view(-1)[0] = TOKENS
    places = torch.arange(TOKENS)
    real, ends = places < lengths, (places == 0) | (places == lengths - 1)
    words = torch.randint(5, WORDS, (*shape, TOKENS), generator=stream)
    return {
        "input_ids": words * real,
        "attention_mask": real.long(),
        "special_tokens_mask": (ends | ~real).long(),
    }


def labelled(batch: Tensors, labels: Tensor) -> Tensors:
    """The batch with these labels."""
    return {**batch, "labels": labels}


def drawn(stream: torch.Generator, most: int, *shape: int) -> Tensor:
    """Random numbers below."""
    return torch.randint(0, most, shape, generator=stream)


def tags(stream: torch.Generator) -> Tensors:
    """A label for every token but the special ones."""
    batch = texts(stream, SIZE)
    labels = drawn(stream, len(TAGS), SIZE, TOKENS)
    return labelled(batch, labels.masked_fill(batch["special_tokens_mask"].bool(), -100))


def answers(stream: torch.Generator) -> Tensors:
    """Prompts of two tokens, and what follows."""
    batch = texts(stream, SIZE)
    prompt = (torch.arange(TOKENS) < 2) | ~batch["attention_mask"].bool()
    return labelled(batch, batch["input_ids"].masked_fill(prompt, -100))


def images(stream: torch.Generator) -> Tensors:
    """Random pixels in [0, 1], some of them at the ends of the range."""
    pixels = torch.rand(SIZE, 1, 4, 4, generator=stream, dtype=torch.float64)
    return {
        "pixel_values": (1.4 * pixels - 0.2).clamp(0, 1),
        "labels": drawn(stream, 3, SIZE),
    }


def of_images(build: Callable[[float], nn.Module]) -> Subject:
    """Classification of them."""

    def task(dropout: float) -> Task:
        return Classification(build(dropout), num_labels=3, at=Pixels())

    return Subject(task, images, words=False)


SUBJECTS: dict[str, Subject] = {
    "classification": Subject(
        lambda dropout: Classification(
            BertForSequenceClassification(config(dropout, num_labels=3)).double(),
            num_labels=3,
            class_weights=[0.5, 1.0, 2.0],
            label_smoothing=0.1,
        ),
        lambda stream: labelled(texts(stream, SIZE), drawn(stream, 3, SIZE)),
    ),
    "regression": Subject(
        lambda dropout: Regression(
            BertForSequenceClassification(config(dropout, num_labels=1)).double()
        ),
        lambda stream: labelled(texts(stream, SIZE), torch.rand(SIZE, generator=stream).double()),
    ),
    "multi_label": Subject(
        lambda dropout: MultiLabel(
            BertForSequenceClassification(config(dropout, num_labels=5)).double(), num_labels=5
        ),
        lambda stream: labelled(texts(stream, SIZE), drawn(stream, 2, SIZE, 5)),
    ),
    "token_classification": Subject(
        lambda dropout: TokenClassification(
            BertForTokenClassification(config(dropout, num_labels=len(TAGS))).double(),
            label_names=TAGS,
        ),
        tags,
    ),
    "multiple_choice": Subject(
        lambda dropout: MultipleChoice(BertForMultipleChoice(config(dropout)).double(), choices=3),
        lambda stream: labelled(texts(stream, SIZE, 3), drawn(stream, 3, SIZE)),
    ),
    "causal_lm": Subject(lambda dropout: CausalLM(gpt2(dropout), vocabulary=WORDS), answers),
    "info_nce": Subject(
        lambda dropout: Contrastive(BertModel(config(dropout)).double()),
        lambda stream: texts(stream, SIZE, 2),
        separable=False,
    ),
    "flat_nce": Subject(
        lambda dropout: Contrastive(
            BertModel(config(dropout)).double(), loss="flat_nce", pooling="mean"
        ),
        lambda stream: texts(stream, SIZE, 3),
        separable=False,
    ),
    "mlp": of_images(mlp),
    "convolutional": of_images(convolutional),
    "vit": of_images(vit),
}
