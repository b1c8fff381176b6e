"""`lit-adv COMMAND ...`: every file here with a `main` is a command, `a_b.py` is `a-b`."""

import sys
from importlib import import_module
from pathlib import Path

NOT_COMMANDS = {"__init__", "main"}


def main() -> None:
    """Entry point of the console script."""
    files = {path.stem for path in Path(__file__).parent.glob("*.py")} - NOT_COMMANDS
    commands = {name.replace("_", "-"): name for name in files}
    choices = ", ".join(sorted(commands))
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(f"usage: lit-adv COMMAND ...\n\ncommands: {choices}\n\nlit-adv train --help")
        return
    command = sys.argv.pop(1)
    if command not in commands:
        print(f"error: {command}: no such command; choose one of {choices}", file=sys.stderr)
        sys.exit(1)
    import_module(f"lit_adv.cli.{commands[command]}").main()
