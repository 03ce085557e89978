"""`pairs.csv` of a student's folder: each preference pair in the last step that took it."""

import csv
from pathlib import Path

from marco.errors import UserError

FILE = "pairs.csv"
COLUMNS = (
    "row",
    "step",
    "margin_nats",
    "length_difference_tokens",
    "chosen_tokens",
    "rejected_tokens",
    "chosen_reward",
    "rejected_reward",
)


def read_pairs(student: Path) -> list[dict[str, float]]:
    """The lines of the student's file, none if it has no such file: it learnt from no pairs.

    Columns as in `marco.training.figures.pair_line`. UserError for a file that is none.
    """
    path = student / FILE
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            pairs = [{name: float(row[name]) for name in COLUMNS} for row in csv.DictReader(file)]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} holds no margins and lengths of pairs: train again") from error
    if not pairs:
        raise UserError(f"{path} holds no pair: train again")
    return pairs
