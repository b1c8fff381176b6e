"""What a setting is compared with: plain fine-tuning under the same conditions."""

from collections.abc import Sequence

from lit_adv.reports import settings
from lit_adv.reports.setting import Identity, Setting
from lit_adv.reports.settings import PLAIN

LEVEL = "flood.b"


def baseline(setting: Setting, among: Sequence[Setting]) -> Setting | None:
    """Plain fine-tuning with all other settings equal; else the same with the flood level 0.

    Args:
        setting: whose baseline it is; may be its own.
        among: all settings.
    """
    conditions = _conditions(setting)
    for other in among:
        if settings.is_plain(other.values) and _conditions(other) == conditions:
            return other
    unflooded = _without(setting.identity, (LEVEL,))
    for other in among:
        level = dict(other.identity).get(LEVEL)
        if level == 0 and _without(other.identity, (LEVEL,)) == unflooded:
            return other
    return None


def _conditions(setting: Setting) -> Identity:
    """Everything but what plain fine-tuning does without."""
    return _without(setting.identity, tuple(PLAIN))


def _without(identity: Identity, groups: tuple[str, ...]) -> Identity:
    return frozenset(item for item in identity if not settings.within(item[0], groups))
