"""The sentence encoder: vectors of unit length whose cosines say how alike two texts are."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from lit_adv.adapters import inner
from lit_adv.attacks.encoded import Encoded, Reader
from lit_adv.models.loading import loading
from lit_adv.models.pretrained import packaged


class Encoder:
    """Answers each text with the mean of its tokens' last hidden states, of length 1.

    Args:
        reader: a network with `last_hidden_state`, and its tokenizer.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def keys(self, items: Sequence[str]) -> list[Encoded]:
        return self.reader.encode(items)

    def answer(self, keys: Sequence[Encoded]) -> list[Any]:
        return self.reader.read(keys, self._vectors)

    def _vectors(self, batch: dict[str, Tensor]) -> Tensor:
        states = self.reader.network(**batch).last_hidden_state.float()
        real = batch["attention_mask"][..., None].to(states.dtype)
        return F.normalize((states * real).sum(1) / real.sum(1).clamp(min=1), dim=1)


def load(name: str, device: Any, **options: Any) -> Encoder:
    """Whatever `AutoModel` loads, from safetensors only.

    Args:
        name: folder, name on the hub, or `package:FOLDER` inside an installed Python package.
        device: to run on.
        options: of `Reader`.

    Raises:
        ValueError: it cannot be loaded.
    """
    source = packaged(name.removeprefix("package:")) if name.startswith("package:") else name
    with loading(f"attack.resources.encoder={name}: cannot be loaded"):
        if source is None:
            raise ValueError("no such folder in an installed package")
        tokenizer = AutoTokenizer.from_pretrained(source)
        network = AutoModel.from_pretrained(source, use_safetensors=True, dtype="float32")
    return Encoder(Reader(network.to(device), tokenizer, **options))


def of_victim(reader: Reader) -> Encoder:
    """The victim's own network without its head: what it finds alike, it answers alike.

    Raises:
        ValueError: the network has no body with hidden states.
    """
    whole = inner(reader.network)
    body = getattr(whole, "base_model", whole)
    if body is whole or not isinstance(body, nn.Module):
        raise ValueError("attack.resources.encoder=null: the victim has no body; name an encoder")
    return Encoder(
        Reader(
            body,
            reader.tokenizer,
            max_length=reader.max_length,
            precision=reader.precision,
            batch_tokens=reader.batch_tokens,
        )
    )
