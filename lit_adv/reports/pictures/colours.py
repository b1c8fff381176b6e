"""Cividis: a scale of colours that the colour-blind see as others do, from dark blue to yellow."""

# Every eighth part of matplotlib's cividis (Nunez et al., PLOS ONE 2018): all a heat map needs.
STOPS = (
    *("#00224e", "#1a386f", "#434e6c", "#61656f", "#7d7c78"),
    *("#9b9476", "#bcae6c", "#dec958", "#fee838"),
)


def colour(share: float) -> str:
    """The colour of a share of the scale, 0 to 1.

    >>> colour(0.0), colour(1.0)
    ('#00224e', '#fee838')
    """
    place = min(max(share, 0.0), 1.0) * (len(STOPS) - 1)
    at = min(int(place), len(STOPS) - 2)
    here, there = _channels(STOPS[at]), _channels(STOPS[at + 1])
    mixed = [a + (place - at) * (b - a) for a, b in zip(here, there, strict=True)]
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def ink(share: float) -> str:
    """The colour of letters that can be read on it: each has a contrast of at least 4.5."""
    return "#ffffff" if share < 0.47 else "#000000"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
