"""`lit-adv methods`: what each method does, where it comes from, what it costs."""

import argparse


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser("lit-adv methods", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="as in the README")
    if parser.parse_args().markdown:
        print(markdown())
    else:
        show()


def markdown() -> str:
    """The table in Markdown."""
    from lit_adv.catalogue import HEADER, methods  # here: --help need not load torch

    rule = ["---"] * 3 + ["---:"] * 4
    rows = [HEADER, rule, *([f"`{m.name}`", *m.cells[1:]] for m in methods())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def show() -> None:
    """The table on the console."""
    from rich.console import Console
    from rich.table import Table

    from lit_adv.catalogue import HEADER, LAYERS, methods

    found = methods()
    table = Table(title="python train.py method=NAME", title_justify="left")
    table.add_column(HEADER[0], min_width=max(len(m.name) for m in found))
    table.add_column(HEADER[2], no_wrap=True)
    for name in HEADER[3:]:
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for method in found:
        name, what, *rest = method.cells
        table.add_row(f"[bold]{name}[/bold]\n{what}", *rest)
    console = Console()
    console.print(table)
    lines = [
        "F: forward passes per batch; B inputs: backward passes towards the embeddings;",
        "B weights: those of them that train; cost: their sum, plain fine-tuning = 1.",
        f"At the settings of the YAML, in a network of {LAYERS} layers.",
        "update=sam and the like look twice at a batch: twice the cost.",
        "presets: " + ", ".join(f"{m.name}/{p}" for m in found for p in m.presets),
    ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
