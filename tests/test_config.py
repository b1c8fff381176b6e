"""Every YAML composes, binds to its class's signature, and agrees with its defaults."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig

from lit_adv import config

HYDRA = config.folder() / "hydra"
"""What is in it is no choice of a group, but has such groups: hydra/sweeper=grid."""
GROUPS = sorted(
    path
    for parent in (config.folder(), HYDRA)
    for path in parent.iterdir()
    if path.is_dir() and path != HYDRA
)
CHOICES = [
    (str(group.relative_to(config.folder())), str(path.relative_to(group).with_suffix("")))
    for group in GROUPS
    for path in sorted(group.rglob("*.yaml"))
]
ABSTRACT = {("data", "batches")}
NEEDED = {
    "local": ["data.path=here"],
    "hub": ["data.path=a/b"],
    "pretrained": ["model.name=here"],
    "half": ["flood.run=here"],
}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        return compose("train", ["output_dir=out", *overrides])


# Launchers of Hydra's plugins: our files give their defaults, as cli/train.py says too.
@pytest.mark.filterwarnings(
    "ignore:\\s*'hydra/launcher/.*' is validated against ConfigStore schema"
)
@pytest.mark.parametrize(("group", "choice"), [c for c in CHOICES if c not in ABSTRACT])
def test_every_yaml_composes_and_binds(group: str, choice: str):
    config.check(composed(f"{group}={choice}", *NEEDED.get(choice, [])))


@pytest.mark.parametrize("choice", [c for g, c in CHOICES if g in ("method", "flood", "proximal")])
def test_a_yaml_writes_out_every_hyperparameter(choice: str):
    """What a YAML does not show, its reader cannot find."""
    for group in ("method", "flood", "proximal"):
        if (group, choice) in CHOICES:
            node = composed(f"{group}={choice}")[group]
            parameters = set(config.signature(get_object(node["_target_"])))
            assert parameters - config.GIVEN_IN_CODE == set(node) - config.HYDRA_KEYS


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_yaml_begins_with_what_it_is(group: str, choice: str):
    lines = (config.folder() / group / f"{choice}.yaml").read_text().splitlines()
    said = [line for line in lines if not line.startswith("# @package")][0]
    assert said.startswith("# ") and len(said) > 10


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+method.step_sise=1", "method=pgd"],
            r"method.step_sise=1: .*did you mean method.step_size",
        ),
        (["+flood.level=1", "flood=fixed"], r"flood.level=1: unknown key of Fixed; it has b"),
        (["method=pgd", "method.steps=2.5"], r"method.steps=2.5: needs to be a whole number"),
        (["method=pgd", "method.norm=l3"], r"method.norm=l3: .*one of l2, linf, soft-inf"),
        (["method=fgm", "method.radius=wide"], r"method.radius=wide: needs to be a number"),
        (["data=local"], r"data.path: needs a value; set data.path="),
        (["data.limit=all"], r"data.limit=all: needs to be a whole number or null"),
        (
            ["+callbacks.x._target_=lit_adv.callbacks.nothing.No"],
            r"callbacks.x._target_=.*imported",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_remedy(overrides: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        config.check(composed(*overrides))


def test_the_installed_package_would_find_its_own_configuration():
    assert (config.folder() / "train.yaml").is_file()
    assert config.folder() in (
        Path(config.__file__).parent / "conf",
        Path(config.__file__).parents[1] / "conf",
    )
