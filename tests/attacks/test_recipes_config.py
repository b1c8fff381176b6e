"""Every YAML of an attack composes, binds, shows all that can be set, and builds its recipe."""

from dataclasses import fields
from functools import cache
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from lit_adv import config
from lit_adv.attacks.bert_attack import BertAttack
from lit_adv.attacks.deepwordbug import DeepWordBug
from lit_adv.attacks.embedding_pgd import EmbeddingPGD
from lit_adv.attacks.pwws import PWWS
from lit_adv.attacks.similarity import Similarity
from lit_adv.attacks.textbugger import TextBugger
from lit_adv.attacks.textfooler import TextFooler

FOLDER = config.folder() / "attack"
RECIPES = sorted(
    str(path.relative_to(FOLDER).with_suffix(""))
    for path in FOLDER.rglob("*.yaml")
    if path.parent.name != "options" and path.stem != "none"
)
PAPERS: dict[str, type[Any]] = {
    "textfooler": TextFooler,
    "bert_attack": BertAttack,
    "textbugger": TextBugger,
    "deepwordbug": DeepWordBug,
    "pwws": PWWS,
    "embedding_pgd": EmbeddingPGD,
}


@cache
def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        return compose(command, list(overrides))


def _recipe(name: str, *overrides: str) -> Any:
    (node,) = composed("attack_command", f"attack=[{name}]", *overrides).attack.recipes.values()
    return instantiate(node)


def _nodes(node: Any) -> list[DictConfig]:
    """All that name a class."""
    if not isinstance(node, DictConfig):
        return []
    found = [each for child in node.values() for each in _nodes(child)]
    return [node, *found] if "_target_" in node else found


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("command", ["train", "attack_command"])
def test_every_recipe_composes_and_shows_its_hyperparameters(command: str, name: str):
    extra = ["output_dir=out"] if command == "train" else []
    cfg = composed(command, f"attack=[{name}]", *extra)
    config.check(cfg)
    (key,) = cfg.attack.recipes
    assert key == name.replace("/", "_")  # two presets of a paper may be run together
    assert cfg.attack.n and cfg.attack.resources is not None
    instantiate(cfg.attack.recipes[key])
    for node in _nodes(cfg.attack.recipes[key]):
        shown = set(node) - config.HYDRA_KEYS
        assert shown == set(config.signature(get_object(node["_target_"])))


@pytest.mark.parametrize("name", PAPERS)
def test_the_file_of_a_paper_says_what_its_class_does_by_default(name: str):
    assert _recipe(name) == PAPERS[name]()


DEFENDED = Similarity(
    threshold=0.840845057, metric="angular", window=15, against="previous", short="pass"
)
PRESETS = {
    "textfooler/textattack": TextFooler(
        similarity=DEFENDED,
        constrain="before",
        flips=False,
        rank_stop_words=False,
        winners="leading",
    ),
    "textfooler/textdefender": TextFooler(
        similarity=DEFENDED,
        constrain="before",
        flips=False,
        min_cosine=0.0,
        winners="leading",
        max_changed=0.3,
        round_up=True,
        query_budget=50,
    ),
    "textfooler/unlimited": TextFooler(similarity=None, same_speech=False),
    "bert_attack/textattack": BertAttack(
        candidates=8,
        mask="unknown",
        take="best",
        similarity=Similarity(threshold=0.2, metric="cosine"),
        round_up=True,
        rank_stop_words=False,
    ),
    "bert_attack/textdefender": BertAttack(
        candidates=50,
        mask="unknown",
        take="best",
        similarity=DEFENDED,
        max_changed=0.3,
        round_up=True,
        query_budget=50,
    ),
    "bert_attack/unlimited": BertAttack(max_changed=None),
    # TextAttack's encoder measures angles unless it is told otherwise; its BERT-Attack is.
    "textbugger/textattack": TextBugger(
        similarity=Similarity(threshold=0.8, metric="angular"),
        bugs="textattack",
        dissimilar="skip",
        constrain="before",
        sentences=False,
        spare_stop_words=True,
        winners="leading",
    ),
    "textbugger/textdefender": TextFooler(
        similarity=DEFENDED,
        min_cosine=0.0,
        constrain="before",
        same_speech=False,
        ranking="unknown",
        flips=False,
        winners="leading",
        max_changed=0.3,
        round_up=True,
        query_budget=50,
    ),
    "textbugger/unlimited": TextBugger(similarity=None),
    "deepwordbug/textattack": DeepWordBug(change="any", ranking="unknown", spare_stop_words=True),
    "pwws/textattack": PWWS(same_speech=False, spare_stop_words=True, stepwise=True),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_they_are_named_after(name: str):
    assert _recipe(name) == PRESETS[name]


def test_no_preset_goes_untested():
    assert sorted([*PAPERS, *PRESETS]) == RECIPES


def test_several_recipes_stand_side_by_side():
    cfg = composed("attack_command", f"attack=[{','.join(RECIPES)}]", "attack.n=7")
    config.check(cfg)
    assert list(cfg.attack.recipes) == [name.replace("/", "_") for name in RECIPES]
    assert cfg.attack.n == 7
    alone = {**PRESETS, **{name: paper() for name, paper in PAPERS.items()}}
    for name, node in zip(RECIPES, cfg.attack.recipes.values(), strict=True):
        assert instantiate(node) == alone[name]
    for command, extra in (("train", ["output_dir=out"]), ("attack_command", ["attack=none"])):
        assert composed(command, *extra).attack.recipes == {}


def test_a_recipe_is_changed_on_the_command_line():
    changed = _recipe("textfooler", "attack.recipes.textfooler.max_changed=0.1")
    assert changed == TextFooler(max_changed=0.1)
    none = _recipe("textfooler", "attack.recipes.textfooler.similarity=null")
    assert none == TextFooler(similarity=None)
    pgd = _recipe("embedding_pgd", "recipe.radius=0.3")
    assert pgd == EmbeddingPGD(radius=0.3)


@pytest.mark.parametrize(
    "override, message",
    [
        ("+attack.recipes.textfooler.max_chnaged=1", r"unknown key of TextFooler; did you mean .*"),
        ("attack.recipes.textfooler.constrain=now", "needs to be one of before, after"),
        ("attack.recipes.textfooler.neighbours=2.5", "needs to be a whole number"),
        ("attack.recipes.textfooler.similarity.window=wide", "needs to be a whole number or null"),
    ],
)
def test_a_wrong_key_or_value_is_named(override: str, message: str):
    with pytest.raises(ValueError, match=message):
        config.check(composed("attack_command", "attack=[textfooler]", override))


@pytest.mark.parametrize("recipe", PAPERS.values())
def test_hyperparameters_are_set_by_name_and_stay(recipe: type[Any]):
    made = recipe()
    name = fields(made)[0].name
    with pytest.raises(AttributeError):
        setattr(made, name, 1)
    with pytest.raises(TypeError):
        recipe(1)
