"""`lit-adv probe model=minilm data=...`: what a closed-form head makes of a network as it is."""

import json
import sys

from lit_adv.errors import report

USAGE = """usage: lit-adv probe [KEY=VALUE ...] [--json]

One pass over the training set, no training: logistic regression in closed form on the features
of a network as it comes, and how well that answers on validation and test data. What is learned
beyond it is what fine-tuning adds.

  model=minilm data=local data.path=... seed=0     as for lit-adv train
  shrinkage=0.01                                   of the features' covariance, 0 to 1"""


def main() -> None:
    """Entry point; a user's mistake ends in one line."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & {*arguments}:
        print(USAGE)
        return
    overrides = [each for each in arguments if each != "--json"]
    report(lambda: run(overrides, as_json="--json" in arguments))


def run(overrides: list[str], *, as_json: bool = False) -> dict[str, dict[str, float]]:
    """Compose, probe, print.

    Raises:
        ValueError: a setting that cannot be used.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from lit_adv import config, probe  # here: --help need not load torch

    given = dict(each.split("=", 1) for each in overrides if each.startswith("shrinkage="))
    rest = [each for each in overrides if not each.startswith("shrinkage=")]
    try:
        with initialize_config_dir(str(config.folder()), version_base="1.3"):
            cfg = compose("train", ["output_dir=.", *rest])
    except HydraException as error:
        raise ValueError(str(error).splitlines()[0]) from error
    config.check(cfg)
    found = probe.probe(cfg, probe.share(given.get("shrinkage")))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        probe.show(found)
    return found
