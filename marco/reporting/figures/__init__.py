"""The figures of a table: each a function from what lies on disk to a matplotlib figure."""

from typing import Literal

FigureName = Literal[
    "no_answer",
    "sweep",
    "chain_lengths",
    "tree_lengths",
    "response_lengths",
    "test_at",
    "error_classes",
    "margin_length",
]
