"""The bugs of TextBugger as TextAttack 0.3.11 has them (`TextBuggerLi2018`).

Against the paper's, in `bugs`: spaces in words of any length, but not before the last letter; swaps
from four letters on; a look-alike of every lower-case letter and digit, one each, and none of keys.
"""

from random import Random

# A to z and the digits, and what stands for them in `WordSwapHomoglyphSwap`.
LETTERS = "-9876543210'abcdefghijklmnopqrstuvwxyz"
LOOK_ALIKES = (
    "\u02d7\u09ed\u0222\U0001d7d5\u0431\u01bc\u13ce\u01b7\u14bflO`"
    "\u0251\u042c\u03f2\u0501\u0435\U0001d68f\u0261\u0570\u0456\u03f3\U0001d48c\u217c\uff4d"
    "\u0578\u043e\u0440\u051b\u2c85\u0455\U0001d69d\u057d\u0475\u051d\u00d7\u0443\u1d22"
)
GLYPHS = dict(zip(LETTERS, LOOK_ALIKES, strict=True))


def of_word(word: str, random: Random) -> list[str]:
    """A space inside, a letter less, a swap, each at a place drawn by chance; all look-alikes.

    >>> of_word("dull", Random(0))
    ['du ll', 'dul', 'dlul', '\u0501ull', 'd\u057dll', 'du\u217cl', 'dul\u217c']
    """
    inner = range(1, len(word) - 1)
    spaced = [word[:i] + " " + word[i:] for i in inner]
    deleted = [word[:i] + word[i + 1 :] for i in inner]
    swapped = [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in inner[:-1]]
    drawn = [random.choice(options) for options in (spaced, deleted, swapped) if options]
    alike = [word[:i] + GLYPHS[x] + word[i + 1 :] for i, x in enumerate(word) if x in GLYPHS]
    return [each for each in (*drawn, *alike) if each != word]
