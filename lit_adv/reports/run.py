"""A run as its folder tells it, at any time of its life."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from lit_adv.reports.settings import Value

State: TypeAlias = Literal["ok", "failed", "pruned", "running"]


@dataclass(frozen=True)
class Attacked:
    """One attack on a run's victim.

    Args:
        name: of the recipe.
        examples: that were attacked.
        clean: accuracy before it, a share; None = unknown.
        attacked: accuracy under it.
        calibrated: the same of the victim at the temperature that fits the validation split.
        page: attack.html, or None.
    """

    name: str
    examples: int | None
    clean: float | None
    attacked: float | None
    calibrated: float | None
    page: Path | None


@dataclass(frozen=True, eq=False)
class Run:
    """One run.

    Args:
        folder: its own.
        name: the folder as seen from those that the report is of.
        state: ok: it has results; failed: it says that it failed; pruned: that its search had no
            hope of it; running: neither, yet.
        reason: why it failed or was pruned, in one line.
        settings: flat, with the names of choices; empty where they could not be read.
        overridden: keys that were set on the command line.
        metrics: by split and name: `test/accuracy`, `attack/NAME`, `attack/NAME/calibrated`.
        costs: what the clock and the memory say, by column.
        steps: optimizer steps; None = unknown.
        level: the flood level that it trained at in the end, or None.
        since: the step that the level held from.
        attacks: on its victim.
        monitor: the metric that its search or its best checkpoint goes by; None = the task's own.
    """

    folder: Path
    name: str
    state: State
    reason: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)
    overridden: frozenset[str] = frozenset()
    metrics: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)
    steps: int | None = None
    level: float | None = None
    since: int = 0
    attacks: tuple[Attacked, ...] = ()
    monitor: str | None = None

    @property
    def seed(self) -> Value:
        """Of initial weights, dropout, batches and noise."""
        return self.settings.get("seed")
