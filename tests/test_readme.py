"""What the README says that can be checked without running it."""

import re
from pathlib import Path

from lit_adv.cli.methods import markdown

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_table_of_methods_is_the_one_that_the_command_prints():
    between = re.search(r"<!-- methods -->\n(.*?)\n<!-- /methods -->", README, re.DOTALL)
    assert between is not None
    assert between[1] == markdown()


def test_every_choice_of_every_group_is_named():
    conf = Path(__file__).parents[1] / "conf"
    for group in ("method", "flood", "proximal", "update", "mask", "model", "data", "callbacks"):
        for path in (conf / group).rglob("*.yaml"):
            name = path.relative_to(conf / group).with_suffix("").as_posix()
            if (group, name) != ("data", "batches"):
                assert f"`{name}`" in README or f"{group}={name}`" in README, name
