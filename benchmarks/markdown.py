"""Figures of several seeds as text, and tables of a page."""

from collections.abc import Sequence
from statistics import mean, stdev


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and sample standard deviation over seeds; of one seed its value; of none a dash.

    >>> spread([1.0, 2.0, 3.0], 1), spread([1.0], 1), spread([], 1)
    ('2.0 ± 1.0', '1.0', '-')
    """
    if not values:
        return "-"
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def table(head: Sequence[str], lines: Sequence[Sequence[str]], names: int = 1) -> str:
    """A table whose first columns are names, and the others numbers.

    >>> print(table(["run", "loss"], [["plain", "0.5"]]))
    | run | loss |
    | --- | ---: |
    | plain | 0.5 |
    """
    rule = ["---"] * names + ["---:"] * (len(head) - names)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def filled(text: str, tables: dict[str, str]) -> str:
    """The text of a page with each table between the marks that name it.

    >>> filled("<!-- a -->\\nold\\n<!-- /a -->\\nrest", {"a": "new"})
    '<!-- a -->\\nnew\\n<!-- /a -->\\nrest'
    """
    for name, content in tables.items():
        (before, _, rest), end = text.partition(f"<!-- {name} -->\n"), f"<!-- /{name} -->"
        text = f"{before}<!-- {name} -->\n{content}\n{end}{rest.partition(end)[2]}"
    return text
