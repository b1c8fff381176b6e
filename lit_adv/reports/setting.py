"""Runs that differ in nothing but their seed are one setting."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from lit_adv.reports import settings
from lit_adv.reports.finding import natural
from lit_adv.reports.run import Run
from lit_adv.reports.settings import Value
from lit_adv.reports.spread import Spread, spread

FOLLOWERS = ("flood.run", "flood.losses")
"""Folders and files of other runs: every seed has those of its own."""

DATA = ("data._target_", "data.path", "data.name", "data.test")
"""What says which texts are tested; results on others are not comparable."""

Identity = frozenset[tuple[str, Value]]


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting, with a run per seed.

    Args:
        number: counted from 1, in the order of a report.
        values: what all its runs have alike.
        identity: what of it the training depends on.
        runs: finished, the last one of each seed.
        repeated: finished runs that another one of the same seed replaces.
        failed: runs that failed and whose seed has no finished run.
        pruned: the same of those that a search had no hope of.
        running: the same of those that have not ended yet.
    """

    number: int
    values: Mapping[str, Value]
    identity: Identity
    runs: tuple[Run, ...]
    repeated: tuple[Run, ...]
    failed: tuple[Run, ...]
    pruned: tuple[Run, ...]
    running: tuple[Run, ...]

    @property
    def all(self) -> tuple[Run, ...]:
        """Every run of it, ended or not."""
        return (*self.runs, *self.repeated, *self.failed, *self.pruned, *self.running)

    def by_seed(self, metric: str) -> dict[Value, float]:
        """The values of a metric or of a cost."""
        known = {run.seed: {**run.costs, **run.metrics} for run in self.runs}
        return {seed: found[metric] for seed, found in known.items() if metric in found}

    def spread(self, metric: str | None) -> Spread | None:
        """Of a metric or a cost over the seeds; None where no run has it."""
        return spread(list(self.by_seed(metric).values())) if metric else None


def group(runs: Sequence[Run]) -> list[Setting]:
    """The settings of these runs, not numbered yet; runs whose settings are unknown have none."""
    known = [run for run in runs if run.settings]
    followers = _followers(known)
    groups: dict[Identity, list[Run]] = defaultdict(list)
    for run in known:
        groups[_identity(run, followers)].append(run)
    return [_setting(identity, members) for identity, members in groups.items()]


def numbered(found: Iterable[Setting]) -> list[Setting]:
    """The same, numbered as they stand."""
    return [replace(each, number=number) for number, each in enumerate(found, 1)]


def data(setting: Setting) -> tuple[Value, ...]:
    """Which texts it is tested on."""
    return tuple(setting.values.get(key) for key in DATA)


def _setting(identity: Identity, members: list[Run]) -> Setting:
    by_seed: dict[Value, list[Run]] = defaultdict(list)
    for run in sorted(members, key=lambda run: natural(run.name)):
        if run.state == "ok":
            by_seed[run.seed].append(run)
    counted = [by_seed[seed][-1] for seed in sorted(by_seed, key=order)]
    missing = [run for run in members if run.state != "ok" and run.seed not in by_seed]
    alike = {
        key: value
        for key, value in members[0].settings.items()
        if all(key in run.settings and run.settings[key] == value for run in members[1:])
    }
    return Setting(
        number=0,
        values=alike,
        identity=identity,
        runs=tuple(counted),
        repeated=tuple(run for runs in by_seed.values() for run in runs[:-1]),
        failed=tuple(run for run in missing if run.state == "failed"),
        pruned=tuple(run for run in missing if run.state == "pruned"),
        running=tuple(run for run in missing if run.state == "running"),
    )


def order(value: Value) -> tuple[int, float, str]:
    """A key that sorts values of any kind: none, numbers by size, texts by name.

    >>> sorted(["b", 10, None, 9.5, "a"], key=order)
    [None, 9.5, 10, 'a', 'b']
    """
    if isinstance(value, int | float):
        return (1, float(value), "")
    return (0, 0.0, "") if value is None else (2, 0.0, value)


def _identity(run: Run, without: set[str]) -> Identity:
    kept = settings.effective(run.settings)
    return frozenset((key, value) for key, value in kept.items() if key not in without)


def _followers(runs: Sequence[Run]) -> set[str]:
    """Keys that only follow from the seed: all else equal, a seed has one value of them."""
    keys = {key for run in runs for key in run.settings}
    candidates = {key for key in keys if key in FOLLOWERS or key.endswith(".seed")}
    values: dict[tuple[Identity, Value, str], set[Value]] = defaultdict(set)
    for run in runs:
        identity = _identity(run, candidates)
        for key in candidates & run.settings.keys():
            values[identity, run.seed, key].add(run.settings[key])
    return candidates - {key for (_, _, key), found in values.items() if len(found) > 1}
