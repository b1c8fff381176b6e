"""Each family of networks: where it is perturbed, that this reaches the loss, and that padding
does not; the table in docs/models.md is made of what is found here."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from models.families import FAMILIES, batch, network
from torch import Tensor

from lit_adv.adoption.place import Place
from lit_adv.functional import ball
from lit_adv.methods.fgm import FGM

RADIUS = 0.02
TABLE = Path(__file__).parents[2] / "docs" / "models.md"

# What peft asks transformers.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

every_family = pytest.mark.parametrize("name", FAMILIES)
texts = pytest.mark.parametrize("name", [name for name in FAMILIES if name != "ViT"])


def built(name: str) -> Any:
    pytest.importorskip(FAMILIES[name].needs, reason="an extra")
    return network(FAMILIES[name])


def found(network: Any, fed: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mask, gradient, and the perturbation that FGM makes of it."""
    place = Place(network)
    mask = place.mask(fed, lambda given: network(**given))
    clean = torch.zeros(*mask.shape, place.width, dtype=next(network.parameters()).dtype)
    clean.requires_grad_()
    with place.perturbed(fed, clean, False) as given:
        loss = network(**given).loss
    (grad,) = torch.autograd.grad(loss, clean)
    return mask, grad, ball.ascend(clean.detach(), grad, mask, RADIUS)


@every_family
def test_the_perturbation_reaches_the_loss_and_padding_stays_clean(name: str):
    model = built(name)
    fed = batch(model)
    mask, grad, delta = found(model, fed)
    assert (grad.norm(dim=-1)[mask] > 0).sum() >= len(mask)  # a language model's last word: none
    assert not delta[~mask].any() and (ball.lengths(delta) > 0).all()
    if "attention_mask" in fed:
        assert torch.equal(mask, fed["attention_mask"].bool())

    method = FGM(radius=RADIUS).on(model)
    loss = method.step(lambda: model(**fed).loss, fed)
    assert float(loss) == pytest.approx(float(model(**fed).loss.detach()))
    assert float(method.logged["perturbation/norm"]) == pytest.approx(RADIUS)
    assert method.logged["loss/adversarial"] > method.logged["loss/clean"]
    for key, weight in model.named_parameters():
        assert weight.requires_grad or weight.grad is None, key
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert sum(weight.grad is not None and bool(weight.grad.any()) for weight in trained) > 0


@texts
def test_chosen_tokens_stay_clean_as_well(name: str):
    """As special tokens do, where somebody asks for it."""
    model = built(name)
    fed = batch(model)
    special = fed["input_ids"] == model.config.eos_token_id
    place = Place(model, tokens=lambda given: given["attention_mask"].bool() & ~special)
    mask = place.mask(fed, lambda given: model(**given))
    assert not mask[special].any() and mask.sum() == fed["attention_mask"].sum() - special.sum()


@texts
def test_a_perturbation_of_padding_is_none_of_the_loss(name: str):
    model = built(name)
    for left in (False, True) if name in EITHER else (False,):
        mask, grad, _ = found(model, batch(model, left))
        assert not grad[~mask].any()


# The others read their answer at the first place, or count places from the left edge: words behind
# padding are other ones to them, whoever perturbs them.
EITHER = [
    "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma 2", "Gemma 3", "Llama, LoRA",
    "Llama, 8 bits, LoRA",
]  # fmt: skip


@texts
def test_left_and_right_padding_agree_where_the_network_does_not_mind(name: str):
    model = built(name)
    right, left = batch(model), batch(model, left=True)
    losses = [float(model(**fed).loss.detach()) for fed in (right, left)]
    assert (losses[0] == pytest.approx(losses[1], rel=1e-5)) == (name in EITHER)
    if name in EITHER:
        (here, _, delta), (there, _, other) = found(model, right), found(model, left)
        torch.testing.assert_close(delta[here], other[there], rtol=1e-5, atol=1e-6)


def test_the_table_is_what_is_found(capsys: pytest.CaptureFixture[str]):
    there = [name for name, family in FAMILIES.items() if find_spec(family.needs)]
    lines = [
        "| family | class | perturbed | width | padding | |",
        "|---|---|---|---|---|---|",
        *(_line(name) for name in there),
    ]
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    known = TABLE.read_text().splitlines()
    assert [line for line in lines if line not in known] == []
    assert sum(line.startswith("| ") for line in known) == len(FAMILIES) + 1


def _line(name: str) -> str:
    model = built(name)
    place = Place(model)
    place.mask(batch(model), lambda given: model(**given))
    where = next(key for key, module in model.named_modules() if module is place.module)
    sides = "-" if name == "ViT" else "left or right" if name in EITHER else "right"
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    cells = [name, f"`{type(base).__name__}`", f"`{where}`", str(place.width), sides]
    return f"| {' | '.join([*cells, FAMILIES[name].special])} |".replace(" |  |", " | |")
