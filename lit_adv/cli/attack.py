"""`lit-adv attack VICTIM attack=textfooler n=1000 ...`: accuracy under attack."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_adv.errors import report

if TYPE_CHECKING:
    from omegaconf import DictConfig

USAGE = """usage: lit-adv attack VICTIM [KEY=VALUE ...]

VICTIM is a run's folder, a checkpoint, or the folder of a Hugging Face classifier.

  attack=textfooler           or bert_attack, textbugger, deepwordbug, pwws, embedding_pgd; presets
                              such as textfooler/textattack; several: attack=[textfooler,pwws]
  n=1000 seed=0               a seeded, stratified sample of the test split
  data=local data.path=...    the data; those of the victim's run where it is known
  attack.resources.neighbours=FILE ...encoder=FOLDER ...masked_lm=FOLDER ...tagger=FILE
  attack.output=FOLDER        default: attacks/ beside the victim

Interrupted, the same command goes on. --cfg job shows every setting there is."""


def main() -> None:
    """Entry point; a user's mistake ends in one line."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    try:
        report(lambda: run(arguments[0], arguments[1:]))
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


def run(victim: str, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Compose, attack, print a table.

    Raises:
        ValueError: a victim, a resource or a setting that cannot be used.
    """
    shown = "--cfg" in overrides
    cfg = compose(victim, [each for each in overrides if each not in ("--cfg", "job")])
    if shown:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(cfg, resolve=True))
        return {}
    from lit_adv.attacks.attack import attack  # here: --help need not load torch
    from lit_adv.attacks.table import show

    path = Path(victim)
    folder = Path(cfg.attack.output or beside(path) / "attacks")
    outcomes = attack(path, cfg, folder)
    show(outcomes, folder)
    return outcomes


def compose(victim: str, overrides: list[str]) -> "DictConfig":
    """The configuration: what the overrides say, the rest from the victim's run.

    Raises:
        ValueError: nothing says what the data are.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from lit_adv import config
    from lit_adv.attacks.source import configuration

    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        cfg = compose("attack_command", overrides)
    known = configuration(Path(victim))
    if known is not None:
        task = str(known.get("task", {}).get("_target_", "labels.Labels"))
        if not task.endswith("labels.Labels"):
            raise ValueError(f"{victim}: a run of {task.split('.')[-1]}; attacks are for task=auto")
        theirs = {key: known.recipe[key] for key in cfg.recipe}
        cfg.recipe = OmegaConf.merge(cfg.recipe, theirs)
    if "data" not in cfg:
        if known is None:
            raise ValueError(f"{victim}: no run that names its data; give data=local data.path=...")
        OmegaConf.set_struct(cfg, False)
        cfg.data = known.data
    return cfg


def beside(victim: Path) -> Path:
    """The folder of a victim's run, or the victim's own."""
    if victim.suffix == ".ckpt":
        return victim.parents[1] if victim.parent.name == "checkpoints" else victim.parent
    return victim.parent if victim.name == "export" else victim
