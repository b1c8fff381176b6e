"""A session: one victim, its data, and the attacks made on it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from lit_adv.attacks import kit
from lit_adv.attacks.batching import filled
from lit_adv.attacks.embedding_pgd import EmbeddingPGD
from lit_adv.attacks.encoded import Reader, fitting
from lit_adv.attacks.engine import Engine
from lit_adv.attacks.kit import Kit
from lit_adv.attacks.resources import Resources
from lit_adv.attacks.sample import stratified
from lit_adv.attacks.settings import Settings
from lit_adv.attacks.trial import Example, Recipe, trial
from lit_adv.attacks.victim import Victim
from lit_adv.attacks.words import Words
from lit_adv.data.datamodule import TextData
from lit_adv.data.splits import Split
from lit_adv.functional import temperature
from lit_adv.standstill import evaluating
from lit_adv.tasks.classification import Classification

ENOUGH = 2000
"""Validation examples that a temperature is fitted on."""


class Session:
    """Attacks on one victim.

    Args:
        network: a sequence classifier, on its device; it is set to evaluate.
        tokenizer: its own.
        data: splits to attack, to calibrate on, to train a masked language model on.
        settings: see Settings.
        resources: see Resources.

    Raises:
        ValueError: the data are not for classification, or by another number of classes than the
            victim's.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        data: TextData,
        settings: Settings,
        resources: Resources,
    ) -> None:
        self.data, self.settings, self.resources = data, settings, resources
        names = data.splits.label_names
        if names is None:
            raise ValueError(
                "attack: the data are for regression; attacks turn a class into another"
            )
        options: dict[str, Any] = {
            "max_length": settings.max_length or data.max_length,
            "batch_tokens": settings.batch_tokens or fitting(network),
        }
        self.reader = Reader(network, tokenizer, precision=settings.precision, **options)
        self.victim = self.exact = Victim(self.reader)
        if self.reader.precision != "32":
            self.exact = Victim(Reader(network, tokenizer, precision="32", **options))
        if self.victim.classes == 1:
            raise ValueError(
                "attack: the victim gives one number, no classes; attacks turn classes"
            )
        if self.victim.classes != len(names):
            raise ValueError(
                f"attack: the victim knows {self.victim.classes} classes, the data {len(names)}: "
                f"{', '.join(names)}; give the data it was trained on by data=..."
            )
        config: Any = network.config
        theirs = [str(name) for name in config.id2label.values()]
        low, own = [name.lower() for name in theirs], [name.lower() for name in names]
        if low != own and sorted(low) == sorted(own):
            raise ValueError(
                f"attack: the victim's classes are {', '.join(theirs)}, those of the data "
                f"{', '.join(names)}; set data.label_names=[{','.join(theirs)}]"
            )
        self.label_names = names
        self.split: Split = getattr(data.splits, settings.split)
        self._temperature: float | None = None

    @property
    def temperature(self) -> float:
        """The temperature that fits the validation split, found once."""
        if self._temperature is None:
            split = self.data.splits.validation
            if len(split) > ENOUGH:
                split = split.cut(ENOUGH, self.settings.seed)[1]
            texts = (
                split.texts
                if split.pairs is None
                else list(zip(split.texts, split.pairs, strict=True))
            )
            logits = self.exact.answer(self.exact.keys(texts))
            table = torch.stack([torch.from_numpy(each) for each in logits])
            self._temperature = temperature.fit(table, torch.tensor(split.labels))
        return self._temperature

    def rows(self) -> list[int]:
        """The sample."""
        return stratified(self.split.labels, self.settings.n, self.settings.seed)

    def examples(self, rows: Sequence[int]) -> list[Example]:
        """Rows of the split, of pairs the second text to be changed."""
        split = self.split
        return [
            Example(
                index=row,
                text=Words.of(split.texts[row])
                if split.pairs is None
                else Words.of(split.pairs[row], first=split.texts[row]),
                label=int(split.labels[row]),
            )
            for row in rows
        ]

    def kit(self, recipe: Recipe) -> Kit:
        """The resources that a recipe needs, read.

        Raises:
            ValueError: one is missing or cannot be read.
        """
        return kit.gather(
            self.resources, recipe.needs, self.reader, self.data, seed=self.settings.seed
        )

    def engine(self, kit: Kit) -> Engine:
        """The victim and the resources, to be asked by attacks."""
        oracles = {**kit.oracles, "victim": self.victim, "exact": self.exact}
        return Engine(oracles, concurrency=self.settings.concurrency)

    def attack(
        self, examples: Sequence[Example], recipe: Recipe, kit: Kit
    ) -> Iterator[dict[str, Any]]:
        """A record per example, in the order they are done."""
        temperatures = {"plain": 1.0}
        if self.settings.calibrate:
            temperatures["calibrated"] = self.temperature
        odd = {each.index: each.odd(self.victim.classes) for each in examples}
        for each in examples:
            if odd[each.index] is not None:
                yield self._record(each, {"outcome": "skipped", "reason": odd[each.index]})

        by_row = {each.index: each for each in examples if odd[each.index] is None}
        if isinstance(recipe, EmbeddingPGD):
            outcomes = self._embedded(by_row, recipe, temperatures)
        else:
            trials = (
                ((row, kind), trial(each, recipe, kit.tools, t))
                for row, each in by_row.items()
                for kind, t in temperatures.items()
            )
            outcomes = self.engine(kit).run(trials)
        half: dict[int, dict[str, dict[str, Any]]] = {}
        for (row, kind), outcome in outcomes:
            if isinstance(outcome, Exception):
                reason = f"{type(outcome).__name__}: {outcome}"
                outcome = {"outcome": "skipped", "reason": reason}
            done = half.setdefault(row, {})
            done[kind] = outcome
            if len(done) == len(temperatures):
                del half[row]
                calibrated = done.get("calibrated")
                yield self._record(by_row[row], {**done["plain"], "calibrated": calibrated})

    def _embedded(
        self,
        examples: Mapping[int, Example],
        recipe: EmbeddingPGD,
        temperatures: Mapping[str, float],
    ) -> Iterator[tuple[tuple[int, str], dict[str, Any]]]:
        """Outcomes of attacks that change vectors, not words."""
        network: Any = self.reader.network
        task = Classification(network, num_labels=self.victim.classes)
        generator = torch.Generator(self.reader.device).manual_seed(self.settings.seed)
        rows = list(examples)
        texts = self.reader.encode([examples[row].text.item for row in rows])
        lengths = [len(text.tokens) for text in texts]
        for index in filled(lengths, max(1, self.reader.batch_tokens // 4)):  # graphs are kept
            batch = self.reader.batch([texts[i] for i in index])
            labels = [examples[rows[i]].label for i in index]
            batch["labels"] = torch.tensor(labels, device=self.reader.device)
            with torch.inference_mode(), evaluating(task):
                predictions = task(batch).argmax(1).tolist()
            for kind, t in temperatures.items():
                lost = recipe.lost(task, batch, t, generator).tolist()
                for i, label, predicted, gone in zip(index, labels, predictions, lost, strict=True):
                    outcome = {
                        "prediction": predicted,
                        "outcome": "succeeded" if gone else "failed",
                    }
                    if predicted != label:
                        outcome["outcome"] = "misclassified"
                    yield (rows[i], kind), outcome

    def _record(self, example: Example, outcome: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "index": example.index,
            "label": example.label,
            "first": example.text.first,
            "original": example.text.text,
            "words": len(example.text),
            "truncated": self.reader.cuts(example.text.item),
            **outcome,
        }
