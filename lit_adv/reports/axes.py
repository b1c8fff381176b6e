"""What was swept: the settings that differ, and the few of them that the others follow from."""

from collections.abc import Sequence

from lit_adv.reports.run import Run
from lit_adv.reports.setting import Setting
from lit_adv.reports.settings import GROUPS, WITHOUT_EFFECT, Value, within

EVALUATION = ("attack", "trainer.log_every_n_steps", "seed")
"""What differs without being swept."""


def differing(runs: Sequence[Run]) -> list[str]:
    """Keys that not all runs which have them have alike, in the order of columns; without the seed.

    A group's target is not among them: its choice says the same.
    """
    values: dict[str, set[Value]] = {}
    for run in runs:
        for key, value in run.settings.items():
            values.setdefault(key, set()).add(value)
    targets = {f"{group}._target_" for group in GROUPS}
    found = (key for key, seen in values.items() if len(seen) > 1 and key not in targets)
    return sorted((key for key in found if key != "seed"), key=_column)


def axes(settings: Sequence[Setting], runs: Sequence[Run]) -> list[str]:
    """The keys that tell settings apart: those set on the command line, and what else it takes.

    A key whose value follows from those before it, such as `method.radius` from `method`, tells
    nothing new.

    Args:
        settings: all of them.
        runs: theirs.
    """
    overridden = {key for run in runs for key in run.overridden}
    there = [key for key in differing(runs) if not within(key, EVALUATION)]
    alike = [key for key in there if all(_agrees(setting, key) for setting in settings)]
    found = [key for key in alike if key in overridden]
    # last what only some have at all, such as a callback, which its own options cannot tell apart
    partly = sorted({key for setting in settings for key, _ in setting.identity} - {*there})
    for key in (*alike, *partly):
        if key not in found and not _follows(key, found, settings):
            found.append(key)
    return sorted(found, key=_column)


def numeric(key: str, settings: Sequence[Setting]) -> bool:
    """Whether a key has several values in these settings, all of them numbers."""
    values = {setting.values[key] for setting in settings if key in setting.values}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numbers and len(values) > 1


def _agrees(setting: Setting, key: str) -> bool:
    """Whether all of its runs that have the key have one value: a name of a choice might differ."""
    return key in setting.values or not any(key in run.settings for run in setting.all)


def _follows(key: str, others: Sequence[str], settings: Sequence[Setting]) -> bool:
    seen: dict[tuple[Value, ...], Value] = {}
    for setting in settings:
        given = tuple(setting.values.get(other) for other in others)
        value = setting.values.get(key)
        if seen.setdefault(given, value) != value:
            return False
    return True


def _column(key: str) -> tuple[int, str]:
    """Choices first, then what is trained, then what only stands beside it."""
    if key in GROUPS:
        return GROUPS.index(key), key
    return len(GROUPS) + within(key, WITHOUT_EFFECT), key
