"""Capitals: a candidate takes over those of the word it stands for."""


def taken_over(candidate: str, word: str) -> str:
    """The candidate, written as the word is: UPPER, Title, or else as it comes.

    >>> [taken_over("film", word) for word in ("movie", "Movie", "MOVIE", "A", "iPhone")]
    ['film', 'Film', 'FILM', 'Film', 'film']
    """
    if len(word) > 1 and word.isupper():  # a single capital is rather that of a sentence's start
        return candidate.upper()
    if word[:1].isupper():
        return candidate[:1].upper() + candidate[1:]
    return candidate
