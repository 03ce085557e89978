"""The one exception for what a person can mend, and the hint that ends its text."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input or surroundings, told in one line: what was wrong, where, what to do."""


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean `x`?` for the end of an error, or nothing where no known name is like it."""
    found = get_close_matches(name, list(known), n=1)
    return f"; did you mean `{found[0]}`?" if found else ""
