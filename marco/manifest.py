"""Folders of stages as they lie on disk: what they tell, and what lies beside them."""

import json
from pathlib import Path
from typing import Any

from marco.errors import UserError

SCHEMA = 1
MANIFEST = "manifest.json"
CONFIG = "config.yaml"
CARD = "README.md"
CARDED = {"student", "dataset"}  # kinds of stages that have a card


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage; UserError if there is none or it is broken.

    Inputs that are no longer where they were are those beside it, where the outputs were moved.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no finished stage: it holds no {MANIFEST}") from error
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST} is not JSON: delete the folder") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise UserError(f"{folder / MANIFEST}: not a manifest of schema {SCHEMA}")
    for entry in manifest.get("inputs", {}).values():
        entry["path"] = str(where_now(Path(entry["path"]), outputs=folder.parent.parent))
    return manifest


def where_now(stage: Path, *, outputs: Path) -> Path:
    """A stage's folder: where it was, or else its namesake in outputs that were moved."""
    moved = outputs / stage.parent.name / stage.name
    return moved if not stage.exists() and (moved / MANIFEST).is_file() else stage


def order_of(folder: Path) -> dict[str, Any]:
    """What a stage was told to make: its config, and more that is of no use here."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {folder / CONFIG}: {error.strerror or error}") from error


def hidden(folder: Path, name: str) -> Path:
    """What is kept of an unfinished stage beside its folder: `part`, `lock`, `pid`, `progress`,
    `failed`.
    """
    return folder.parent / f".{folder.name}.{name}"
