"""Of every choice its best setting: whatever numbers were swept, each choice is there once."""

from collections.abc import Sequence

from lit_adv.reports.axes import numeric
from lit_adv.reports.setting import Setting
from lit_adv.reports.settings import Value
from lit_adv.reports.sweep import Sweep, ranked


def firsts(settings: Sequence[Setting], sweep: Sweep) -> list[Setting]:
    """The best of the settings of each choice, by validation; the first, where there is none.

    Args:
        settings: all that may be chosen.
        sweep: that they are of; what differs in it beside numbers is a choice.
    """
    keys = [key for key in sweep.axes if not numeric(key, sweep.settings)]
    groups: dict[tuple[Value, ...], list[Setting]] = {}
    for each in settings:
        groups.setdefault(tuple(each.values.get(key) for key in keys), []).append(each)
    return [(ranked(members, sweep.metric) or members)[0] for members in groups.values()]
