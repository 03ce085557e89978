"""No problem of a test set may be one that trees are grown for."""

import unicodedata
from collections.abc import Iterable

from marco.errors import UserError
from marco.tasks.problem import Problem

NAMED = 3  # how many problems the error names


def normalised(text: str) -> str:
    """A problem's text without differences of case, whitespace and Unicode form (NFKC)."""
    # Case folding can undo a normal form, so the form is taken on both sides of it.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def check_disjoint(
    train: Iterable[Problem], test: Iterable[Problem], *, train_name: str, test_name: str
) -> None:
    """Raise UserError where a test problem is also a training problem, naming the first ones."""
    seen = {normalised(problem.problem): problem.id for problem in train}
    shared = [(p.id, seen[key]) for p in test if (key := normalised(p.problem)) in seen]
    if shared:
        named = ", ".join(f"{test_id} (= {train_id})" for test_id, train_id in shared[:NAMED])
        rest = f", and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
        raise UserError(
            f"{len(shared)} problem(s) of {test_name} are also in {train_name}: {named}{rest}; "
            f"remove them from {train_name}"
        )
