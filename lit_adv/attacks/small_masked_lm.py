"""A small masked language model, trained on the texts at hand: for where there is no other."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR
from tqdm.auto import tqdm
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast
from transformers.utils import logging

import lit_adv
from lit_adv.attacks.batching import filled, padded
from lit_adv.attacks.masked_lm import MaskedLM, load
from lit_adv.data.splits import Split, Splits
from lit_adv.models import tiny

FORMAT = 1
"""Of what is trained; another number where this file changes it."""

MAX_TOKENS = 512
"""Longest text; the rest is cut off."""


def train(
    texts: Sequence[str],
    *,
    seed: int = 0,
    steps: int = 600,
    batch_tokens: int = 2048,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    vocabulary: int = 4000,
    learning_rate: float = 2e-3,
    folder: str | None = None,
) -> MaskedLM:
    """A BERT with random weights and the library's own tokenizer, both trained on these texts.

    Devlin et al. 2019, arXiv:1810.04805: of 15 % of the tokens, chosen anew every time, the network
    has to say what they were; 80 % of these it sees as [MASK], 10 % as any token, 10 % as they are.
    The same texts and settings give the same network, from the cache the second time. PyTorch's
    own random numbers are neither used nor moved on.

    Args:
        texts: to be trained on.
        seed: of the weights, of the order of the batches and of what is masked.
        steps: batches to train on.
        batch_tokens: of one batch, with padding.
        width: of the embeddings and layers.
        layers: number of layers.
        heads: attention heads per layer.
        vocabulary: largest number of byte pairs.
        learning_rate: at its highest, after a tenth of the steps.
        folder: of the cache; None = `$LIT_ADV_CACHE` or `~/.cache/lit_adv`.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("attack.resources.masked_lm: needs texts to be trained on")
    settings = (seed, steps, batch_tokens, width, layers, heads, vocabulary, learning_rate)
    path = _home(folder) / f"masked_lm-{_fingerprint(texts, settings)}"
    if path.is_dir():
        return load(str(path))

    split = Split(texts=list(texts), labels=[])
    splits = Splits(train=split, validation=split, test=split, label_names=None)
    tokenizer = tiny.train_tokenizer(splits, vocabulary, MAX_TOKENS)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=tiny.SPECIAL.index("[PAD]"),
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())  # manual_seed would reach the GPUs' as well
        network = BertForMaskedLM(config)
    rows = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    _fit(network, rows, steps, batch_tokens, learning_rate, generator)
    _save(network, tokenizer, path)
    return MaskedLM(network, tokenizer, max_length=MAX_TOKENS)


def _fit(
    network: BertForMaskedLM,
    rows: list[list[int]],
    steps: int,
    batch_tokens: int,
    learning_rate: float,
    generator: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    schedule = OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    batches = filled([len(row) for row in rows], batch_tokens)
    order: list[int] = []
    for _ in tqdm(range(steps), "masked language model", leave=False, disable=None):
        if not order:
            order = torch.randperm(len(batches), generator=generator).tolist()
        tokens = padded([rows[index] for index in batches[order.pop()]], 0)
        masked, chosen = mask(tokens, network.config.vocab_size, generator)
        states = network.bert(input_ids=masked, attention_mask=(tokens != 0).long())
        # The layer that is wider than all others, for the chosen tokens only.
        logits = network.cls(states.last_hidden_state[chosen])
        loss = F.cross_entropy(logits, tokens[chosen], reduction="sum") / chosen.sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def mask(tokens: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the network sees of these tokens, and which of them it has to say: both [rows, tokens].

    15 % of all but the special tokens are chosen; 80 % of these become [MASK], 10 % any token.
    """
    first = len(tiny.SPECIAL)
    chosen = (torch.rand(tokens.shape, generator=generator) < 0.15) & (tokens >= first)
    kind = torch.rand(tokens.shape, generator=generator)
    any_token = torch.randint(first, vocabulary, tokens.shape, generator=generator)
    seen = tokens.masked_fill(chosen & (kind < 0.8), tiny.SPECIAL.index("[MASK]"))
    return torch.where(chosen & (kind >= 0.9), any_token, seen), chosen


def _home(folder: str | None) -> Path:
    home = folder or os.environ.get("LIT_ADV_CACHE")
    return Path(home) if home else Path.home() / ".cache" / "lit_adv"


def _fingerprint(texts: Sequence[str], settings: tuple[float, ...]) -> str:
    content = json.dumps([FORMAT, lit_adv.__version__, settings, list(texts)])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _save(network: BertForMaskedLM, tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """All files under their name at once, or none of them."""
    part = path.with_suffix(f".{uuid4().hex}.part")
    logging.disable_progress_bar()
    try:
        network.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(path)
    except OSError:
        if not path.is_dir():  # it is where another process was quicker
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
