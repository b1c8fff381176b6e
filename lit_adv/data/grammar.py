"""A grammar of short reviews: negation, intensifiers, and contrasts in which the last clause wins.

The sentiment of a clause is that of its adjective or verb, turned by a negation; the label of a
review is the sentiment of its last clause. Every word with a sentiment belongs to a group of
synonyms that the grammar knows, so that exchanging one for another never changes a label.
"""

from collections.abc import Sequence
from random import Random

GOOD, BAD = 1, 0

# One row per kind of judgement: synonyms that praise, synonyms that blame.
JUDGEMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "general": (("good", "fine", "great", "excellent"), ("bad", "poor", "awful", "terrible")),
    "delight": (("delightful", "lovely", "charming"), ("dreadful", "nasty", "unpleasant")),
    "interest": (("gripping", "fascinating", "exciting"), ("boring", "dull", "tedious")),
    "skill": (("masterful", "skilful", "accomplished"), ("clumsy", "amateurish", "inept")),
    "feeling": (("moving", "touching", "stirring"), ("cold", "lifeless", "flat")),
    "taste": (("delicious", "tasty", "savoury"), ("bland", "stale", "tasteless")),
    "manner": (("friendly", "polite", "courteous"), ("rude", "surly", "impolite")),
    "speed": (("quick", "prompt", "swift"), ("slow", "sluggish", "late")),
    "order": (("clean", "tidy", "spotless"), ("dirty", "filthy", "grubby")),
    "comfort": (("comfortable", "cosy", "snug"), ("cramped", "uncomfortable", "draughty")),
    "build": (("sturdy", "solid", "robust"), ("flimsy", "fragile", "shaky")),
    "trust": (("reliable", "dependable", "faultless"), ("unreliable", "faulty", "erratic")),
    "worth": (("cheap", "fair", "reasonable"), ("overpriced", "costly", "excessive")),
}
LIKING = (("loved", "enjoyed", "adored"), ("hated", "disliked", "despised"))
LIKING_PLAIN = (("love", "enjoy", "adore"), ("hate", "dislike", "despise"))

# What is reviewed: its names, and for each aspect the judgements that suit it beside the general
# ones.
DOMAINS: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "film": (
        ("film", "movie", "picture"),
        {
            "plot": ("interest",),
            "acting": ("skill", "feeling"),
            "dialogue": ("skill", "interest"),
            "soundtrack": ("feeling", "delight"),
            "ending": ("feeling", "interest"),
            "photography": ("skill", "delight"),
        },
    ),
    "restaurant": (
        ("restaurant", "place", "bistro"),
        {
            "soup": ("taste",),
            "main course": ("taste", "worth"),
            "dessert": ("taste", "delight"),
            "waiter": ("manner", "speed"),
            "service": ("manner", "speed"),
            "bill": ("worth",),
        },
    ),
    "hotel": (
        ("hotel", "guesthouse", "inn"),
        {
            "room": ("order", "comfort"),
            "bed": ("comfort",),
            "bathroom": ("order",),
            "reception": ("manner", "speed"),
            "breakfast": ("taste", "worth"),
            "view": ("delight",),
        },
    ),
    "gadget": (
        ("phone", "camera", "laptop"),
        {
            "case": ("build",),
            "battery": ("trust",),
            "screen": ("delight", "trust"),
            "software": ("speed", "trust"),
            "keyboard": ("build", "comfort"),
            "price": ("worth",),
        },
    ),
    "book": (
        ("book", "novel", "volume"),
        {
            "story": ("interest", "feeling"),
            "prose": ("skill", "delight"),
            "hero": ("interest", "feeling"),
            "first chapter": ("interest", "skill"),
            "translation": ("skill",),
            "cover": ("delight", "build"),
        },
    ),
}
COPULAS = ("was", "seemed", "felt", "proved")
INTENSIFIERS = ("very", "really", "truly", "extremely", "rather", "quite", "remarkably")
NEGATIONS = ("was not", "was never", "was hardly", "was anything but", "was far from")
CONTRASTS = ("{0} , but {1}", "{0} , yet {1}", "{0} ; still , {1}", "although {0} , {1}")
CONTRASTS += ("while {0} , {1}", "{0} ; however , {1}", "even though {0} , {1}")
SEQUELS = ("{0} and {1}", "{0} , and {1}", "{0} ; moreover , {1}", "{0} , what is more , {1}")
OPENINGS = (
    "to be honest ,",
    "on the whole ,",
    "after two days ,",
    "as a regular ,",
    "my sister chose this {0} :",
    "this was my first {0} in months :",
    "i had read about this {0} :",
    "a friend recommended the {0} :",
    "we came on a rainy evening :",
    "with no expectations ,",
)


def synonyms() -> list[tuple[str, ...]]:
    """All groups of words that may stand for each other without changing any label."""
    judged = [group for both in JUDGEMENTS.values() for group in both]
    names = [names for names, _ in DOMAINS.values()]
    return [*judged, *LIKING, *LIKING_PLAIN, *names, COPULAS, INTENSIFIERS, NEGATIONS]


def review(random: Random) -> tuple[str, int]:
    """One review and its label, 1 = praise, 0 = blame.

    >>> review(Random(3))
    ('after two days , the service was anything but swift , yet the bill proved good', 1)
    """
    names, aspects = DOMAINS[random.choice(list(DOMAINS))]
    first, last = random.sample(list(aspects), 2)
    label = random.choice((GOOD, BAD))

    text = _clause(last, aspects[last], label, random)
    form = random.random()
    if form < 0.35:
        text = random.choice(CONTRASTS).format(
            _clause(first, aspects[first], 1 - label, random), text
        )
    elif form < 0.6:
        text = random.choice(SEQUELS).format(_clause(first, aspects[first], label, random), text)
    if random.random() < 0.6:
        text = f"{random.choice(OPENINGS).format(random.choice(names))} {text}"
    return text, label


def _clause(aspect: str, judgements: Sequence[str], label: int, random: Random) -> str:
    negated = random.random() < 0.25
    said = 1 - label if negated else label
    if random.random() < 0.2:
        verb = random.choice((LIKING_PLAIN if negated else LIKING)[1 - said])
        return f"i {'did not ' if negated else ''}{verb} the {aspect}"

    adjective = random.choice(JUDGEMENTS[random.choice(("general", *judgements))][1 - said])
    if negated:
        return f"the {aspect} {random.choice(NEGATIONS)} {adjective}"
    intensifier = f"{random.choice(INTENSIFIERS)} " if random.random() < 0.5 else ""
    return f"the {aspect} {random.choice(COPULAS)} {intensifier}{adjective}"
