"""Accuracy before and under attack."""

from dataclasses import dataclass

from lit_adv.reports.choices import firsts
from lit_adv.reports.setting import Setting
from lit_adv.reports.spread import Spread, spread
from lit_adv.reports.sweep import Problem, Sweep, ranked

MOST = 12
"""Settings; of more, each choice has its best one."""


@dataclass(frozen=True)
class Row:
    """One setting under one attack.

    Args:
        name: of the setting.
        attack: recipe, and how many examples each run was attacked on.
        clean: accuracy before the attack, over seeds.
        attacked: under it.
        calibrated: under it, of the calibrated victim.
    """

    name: str
    attack: str
    clean: Spread | None
    attacked: Spread | None
    calibrated: Spread | None


@dataclass(frozen=True)
class UnderAttack:
    """The picture's figures.

    Args:
        data: name of the texts, where there are several.
        rows: by setting and attack.
        left_out: settings that have been attacked too.
    """

    data: str
    rows: list[Row]
    left_out: int


def find(sweep: Sweep, problem: Problem) -> list[UnderAttack]:
    """The bars, where runs were attacked: of each choice its best setting by validation."""
    attacked = [s for s in problem.settings if any(run.attacks for run in s.runs)]
    if not attacked:
        return []
    shown = attacked
    if len(attacked) > MOST:
        best = firsts(attacked, sweep)
        shown = sorted((ranked(best, sweep.metric) or best)[:MOST], key=lambda s: s.number)
    rows = [row for setting in shown for row in _rows(setting, sweep.label(setting))]
    return [UnderAttack(problem.data, rows, len(attacked) - len(shown))]


def _rows(setting: Setting, name: str) -> list[Row]:
    attacks = [attack for run in setting.runs for attack in run.attacks]
    rows = []
    for recipe in sorted({attack.name for attack in attacks}):
        mine = [attack for attack in attacks if attack.name == recipe]
        counts = sorted({attack.examples for attack in mine if attack.examples is not None})
        counted = f", {' or '.join(map(str, counts))} examples" if counts else ""
        rows.append(
            Row(
                name=name,
                attack=f"{recipe}{counted}",
                clean=spread([a.clean for a in mine if a.clean is not None]),
                attacked=spread([a.attacked for a in mine if a.attacked is not None]),
                calibrated=spread([a.calibrated for a in mine if a.calibrated is not None]),
            )
        )
    return rows
