"""Settings and figures in words."""

from collections.abc import Sequence

from lit_adv.reports.settings import PLAIN, Settings, Value, is_plain
from lit_adv.reports.spread import Difference, Spread

NEUTRAL = ("none", "plain")
"""Choices that a label leaves out."""


def label(settings: Settings, keys: Sequence[str]) -> str:
    """What a setting is, as far as it differs.

    >>> label({"method": "pgd", "flood": "fixed", "flood.b": 0.1}, ["method", "flood", "flood.b"])
    'pgd + fixed, flood.b=0.1'

    Args:
        settings: its own.
        keys: that tell settings apart.
    """
    there = [key for key in keys if key in settings]
    chosen = [str(settings[key]) for key in there if key in PLAIN]
    said = " + ".join(name for name in chosen if name not in NEUTRAL)
    rest = [_option(key, settings[key]) for key in there if key not in PLAIN]
    if is_plain(settings) and any(key in PLAIN for key in keys):
        said = "plain fine-tuning"
    return ", ".join(part for part in (said, *rest) if part) or (
        "without it" if keys else "all runs"
    )


def value(setting: Value) -> str:
    """A setting as one would write it in YAML.

    >>> value(0.1), value(True), value(None), value(1e-5)
    ('0.1', 'true', 'null', '1e-5')
    """
    if setting is None or isinstance(setting, bool):
        return "null" if setting is None else str(setting).lower()
    return f"{setting:.6g}".replace("e-0", "e-") if isinstance(setting, float) else str(setting)


def _option(key: str, setting: Value) -> str:
    """As on the command line; a class by its own name."""
    if key.endswith("._target_"):
        return f"{key.removesuffix('._target_')}={str(setting).rpartition('.')[2]}"
    return f"{key}={value(setting)}"


def figure(number: float | None) -> str:
    """A figure, or that there is none.

    >>> figure(0.91234), figure(None), figure(1234.56)
    ('0.9123', '-', '1,234.6')
    """
    if number is None:
        return "-"
    return f"{number:.4f}" if abs(number) < 100 else f"{number:,.1f}"


def spread(found: Spread | None) -> str:
    """Mean and standard deviation; of a single seed the value alone.

    >>> spread(Spread(0.9, 0.01, 3)), spread(Spread(0.9, None, 1)), spread(None)
    ('0.9000 ± 0.0100', '0.9000', '-')
    """
    if found is None:
        return "-"
    said = figure(found.mean)
    return said if found.sd is None else f"{said} \N{PLUS-MINUS SIGN} {figure(found.sd)}"


def difference(found: Difference | None) -> str:
    """A difference with its 95 % confidence interval; "-" for less than two pairs.

    >>> difference(Difference(0.01, 0.02, 3)), difference(Difference(0.01, None, 1))
    ('+0.0100 [-0.0100, +0.0300]', '-')
    """
    if found is None or found.half is None:
        return "-"
    low, high = found.mean - found.half, found.mean + found.half
    return f"{found.mean:+.4f} [{low:+.4f}, {high:+.4f}]"
