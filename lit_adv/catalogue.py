"""Catalogue: what there is to choose from, from the configurations and the classes themselves."""

import re
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from transformers import BertConfig, BertForSequenceClassification

from lit_adv import config
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.task import Task

LAYERS = 12
"""Of the network that costs are told for; they matter where only some layers run (yopo)."""


@dataclass(frozen=True)
class Method:
    """One line of the catalogue.

    Args:
        name: as in `method=NAME`.
        what: one sentence.
        source: paper.
        cost: passes per batch, at the settings of the YAML.
        presets: other published settings, as in `method=NAME/PRESET`.
    """

    name: str
    what: str
    source: str
    cost: Cost
    presets: list[str]

    @property
    def cells(self) -> list[str]:
        """Name, sentence, source, passes, and their sum relative to plain fine-tuning."""
        passes = [f"{count:.3g}" for count in self.cost]
        return [self.name, self.what, self.source, *passes, f"{self.cost.relative:.2f}"]


HEADER = ["method", "what", "source", "F", "B inputs", "B weights", "cost"]


def methods() -> list[Method]:
    """All methods, from the cheapest to the dearest."""
    task, folder = toy(), config.folder() / "method"
    found = [_method(path, task) for path in sorted(folder.glob("*.yaml"))]
    return sorted(found, key=lambda method: (round(method.cost.relative, 2), method.name))


def describe(path: Path) -> tuple[str, str]:
    """Sentence and source from a YAML's first line, `# Name (source): sentence.`

    Raises:
        ValueError: the line does not read so.
    """
    line = path.read_text().splitlines()[0]
    match = re.fullmatch(r"# [^(:]+?(?: \((?P<source>[^)]+)\))?: (?P<what>.+?)\.", line)
    if match is None:
        raise ValueError(f"{path}: the first line is not `# Name (source): sentence.`")
    return match["what"], match["source"] or ""


def toy() -> Task:
    """A narrow BERT of as many layers as BERT-base."""
    sizes = BertConfig(
        vocab_size=8,
        hidden_size=4,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    return Classification(BertForSequenceClassification(sizes), num_labels=2)


def _method(path: Path, task: Task) -> Method:
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        node = compose("train", [f"method={path.stem}", "output_dir=."])
    module = instantiate(node.method, _partial_=True)(task, Descent())
    what, source = describe(path)
    presets = sorted(preset.stem for preset in path.with_suffix("").glob("*.yaml"))
    return Method(path.stem, what, source, module.cost, presets)
