"""Texts that are learnt token by token, with or without prompts that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedTokenizerBase

from lit_adv.data.splits import Split, Splits
from lit_adv.data.tokenised import Tokenised
from lit_adv.kinds.kind import Kind
from lit_adv.tasks.causal_lm import CausalLM as Task
from lit_adv.tasks.cross_entropy import IGNORED

if TYPE_CHECKING:
    from lit_adv.data.columns import Columns, Table


@dataclass(kw_only=True, frozen=True)
class CausalLM(Kind):
    """`data.text` is learnt, behind a prompt that is given; both are tokenised by themselves.

    A row is: beginning of text (if the tokenizer has one), prompt, text, end of text. Labels are
    those of text and end.

    Args:
        prompt: name of the column of prompts; None = there are none.
        label_smoothing: share of the target that all tokens have alike.
    """

    prompt: str | None = None
    label_smoothing: float = 0.0

    name = "causal_lm"
    architecture = "CausalLM"
    adapters = "CAUSAL_LM"
    new_head = False

    def needs(self, columns: Columns) -> dict[str, str]:
        prompt = {} if self.prompt is None else {"task.prompt": self.prompt}
        return {**prompt, "data.text": columns.text}

    def split(self, columns: Columns, name: str, table: Table, names: list[str] | None) -> Split:
        texts = columns.texts(table, name)
        prompts = None if self.prompt is None else columns.beside(table, self.prompt)
        return Split(texts=texts, pairs=prompts, labels=[0] * len(texts))

    def tokenised(
        self, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> Tokenised:
        begin = _first(tokenizer.bos_token_id, tokenizer.cls_token_id)
        end = _first(tokenizer.eos_token_id, tokenizer.sep_token_id)
        prompts = [""] * len(split) if split.pairs is None else split.pairs
        found: dict[str, list[list[int]]] = {"input_ids": [], "special_tokens_mask": []}
        found["token_labels"] = []
        options: dict[str, Any] = {"add_special_tokens": False, "return_attention_mask": False}
        given = tokenizer(prompts, **options)["input_ids"]
        learnt = tokenizer(split.texts, **options)["input_ids"]
        for row, (before, text) in enumerate(zip(given, learnt, strict=True), start=1):  # pyright: ignore
            prompt = [*begin, *before]
            ids = [*prompt, *text, *end][:max_length]
            if not [*text, *end]:
                raise ValueError(f"data.text: a text is empty (row {row} of a split)")
            if len(ids) <= len(prompt):
                raise ValueError(
                    f"data.max_length={max_length}: the prompt of row {row} has {len(prompt)} "
                    "tokens, and nothing of its text is left; set a larger one"
                )
            labels = [IGNORED] * len(prompt) + ids[len(prompt) :]
            special = [0] * len(ids)
            special[: len(begin)] = [1] * len(begin)
            special[-1] = int(bool(end) and len(ids) == len(prompt) + len(text) + 1)
            for name, values in zip(found, (ids, special, labels), strict=True):
                found[name].append(values)
        return Tokenised.joined(found, None)

    def task(self, network: Any, splits: Splits, **place: Any) -> Task:
        size = network.config.vocab_size
        return Task(network, vocabulary=size, label_smoothing=self.label_smoothing, **place)


def _first(*ids: Any) -> list[int]:
    return [number for number in ids if number is not None][:1]
