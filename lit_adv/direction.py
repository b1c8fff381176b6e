"""Direction: whether what a network says at a word depends on those behind it."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lit_adv import standstill
from lit_adv.adapters import inner


@torch.no_grad()
def sees_ahead(network: nn.Module) -> bool:
    """Whether it does, as encoders do and decoders do not: tried, at two texts of four words.

    Of networks that are not from transformers it is believed.
    """
    whole: Any = inner(network)
    if not isinstance(whole, PreTrainedModel):
        return True
    body = whole.get_encoder() if whole.config.is_encoder_decoder else whole.base_model
    device = next(body.parameters()).device
    words = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], device=device)
    with standstill.evaluating(body):
        states = body(input_ids=words, attention_mask=torch.ones_like(words))[0]
    first, second = states[:, :3]
    return not torch.allclose(first, second, rtol=1e-4, atol=1e-6)
