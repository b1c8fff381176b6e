"""`lit-adv methods`: every method, its source and its price, on the console and in Markdown."""

import inspect
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from lit_adv import catalogue, config
from lit_adv.catalogue import HEADER, Method
from lit_adv.cli.main import main
from lit_adv.cost import Cost
from lit_adv.descent import Descent
from lit_adv.finetuner import FineTuner

FILES = sorted((config.folder() / "method").glob("*.yaml"))
NAMES = [path.stem for path in FILES]


def printed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: dict[str, Method],
    *args: str,
) -> str:
    """What the command says on a console of the usual width."""
    monkeypatch.setattr(catalogue, "methods", lambda: list(found.values()))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["lit-adv", "methods", *args])
    capsys.readouterr()
    main()
    said = capsys.readouterr()
    assert not said.err
    return said.out


@cache
def composed(name: str) -> DictConfig:
    with initialize_config_dir(str(config.folder()), version_base="1.3"):
        return compose("train", [f"method={name}", "output_dir=."])


@pytest.fixture(scope="module")
def found() -> dict[str, Method]:
    """All methods by name, looked up once: composing each takes its time."""
    return {method.name: method for method in catalogue.methods()}


# ---- what is listed ------------------------------------------------------------------------------


def test_every_file_has_one_line_from_the_cheapest_to_the_dearest(found: dict[str, Method]):
    assert sorted(found) == NAMES
    costs = [method.cost.relative for method in found.values()]
    assert costs == sorted(costs) and costs[0] == found["finetune"].cost.relative == 1


def test_the_numbers_are_the_classes_costs(found: dict[str, Method]):
    task = catalogue.toy()
    for name, method in found.items():
        module: FineTuner = instantiate(composed(name).method, _partial_=True)(task, Descent())
        assert method.cost == module.cost, name
        forward, to_inputs, to_weights = module.cost
        cells = [f"{n:.3g}" for n in (forward, to_inputs, to_weights)]
        assert method.cells[3:] == [*cells, f"{(forward + to_inputs + to_weights) / 3:.2f}"]
        assert module.cost.to_weights <= module.cost.to_inputs or name == "finetune", name


def test_costs_known_by_heart(found: dict[str, Method]):
    steps = {name: composed(name).method.get("steps") for name in found}
    assert found["finetune"].cost == Cost(1, 1, 1)
    assert found["fgm"].cost == Cost(2, 2, 2)
    for name in ("freelb", "freelb_pp", "tavat"):
        assert found[name].cost == Cost(steps[name], steps[name], steps[name]), name
    assert found["smart"].cost == Cost(2 + steps["smart"], 2 + steps["smart"], 2)


def test_presets_are_the_files_of_the_methods_folder(found: dict[str, Method]):
    for path in FILES:
        folder = path.with_suffix("")
        presets = sorted(preset.stem for preset in folder.glob("*.yaml"))
        assert found[path.stem].presets == presets
        for preset in presets:
            target = composed(f"{path.stem}/{preset}").method["_target_"]
            assert target == composed(path.stem).method["_target_"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_first_line_names_the_source_that_the_class_names(path: Path):
    what, source = catalogue.describe(path)
    assert what and not what.endswith(".")
    module = inspect.getmodule(get_class(composed(path.stem).method["_target_"]))
    assert module is not None and module.__doc__ is not None
    assert bool(source) == (path.stem != "finetune")
    for part in source.split():  # an arXiv number, or author and year
        assert part in module.__doc__


def test_a_first_line_that_reads_otherwise_is_named(tmp_path: Path):
    path = tmp_path / "new.yaml"
    for line, said in (
        ("# New (arXiv:1): it learns.", ("it learns", "arXiv:1")),
        ("# New one: it learns: much.", ("it learns: much", "")),
    ):
        path.write_text(line + "\n_target_: new.New\n")
        assert catalogue.describe(path) == said
    for line in ("_target_: new.New", "# New", "# New (arXiv:1): it learns", "# (a): b.", ""):
        path.write_text(line + "\n")
        with pytest.raises(ValueError, match=f"{path}: the first line is not"):
            catalogue.describe(path)


# ---- how it is shown -----------------------------------------------------------------------------


def test_markdown_is_a_table_of_as_many_cells_as_the_header(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: dict[str, Method]
):
    lines = printed(monkeypatch, capsys, found, "--markdown").splitlines()
    rows = [re.findall(r"\| (.*?) (?=\|)", line) for line in lines]
    assert {len(row) for row in rows} == {len(HEADER)}
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert rows[0] == HEADER
    numeric = HEADER[HEADER.index("F") :]
    assert rows[1] == ["---"] * (len(HEADER) - len(numeric)) + ["---:"] * len(numeric)
    assert rows[2:] == [[f"`{m.name}`", *m.cells[1:]] for m in found.values()]
    for row in rows[2:]:
        assert all(float(cell) > 0 for cell in row[-len(numeric) :])


def test_the_console_shows_every_name_source_price_and_preset_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], found: dict[str, Method]
):
    said = printed(monkeypatch, capsys, found)
    for method in found.values():
        assert re.search(rf"(?<!\w){method.name}(?!\w)", said), method.name
        assert method.source in said and method.cells[-1] in said
        for preset in method.presets:
            assert f"{method.name}/{preset}" in said
    for word in {word for method in found.values() for word in method.what.split()}:
        assert word in said, word  # nothing is taken for markup
    table = said.split("F: forward passes")[0]
    assert max(map(len, table.splitlines())) <= 80


def test_the_command_is_listed_and_refuses_what_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["lit-adv"])
    main()
    assert (
        "commands: attack, methods, probe, report, soup, suggest-b, train"
        in capsys.readouterr().out
    )
    monkeypatch.setattr(sys, "argv", ["lit-adv", "method"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: method: no such command; choose one of")
