"""One tree as one file that needs nothing else: it opens in any browser, and W&B shows it."""

import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path
from typing import Any

from marco.search.tree import Tree
from marco.viewer import assets
from marco.viewer.index import error_classes_config
from marco.viewer.tree_data import search_config, task_of, tree_data, verdict_data

MATHEMATICS = re.compile(
    r"\$|\\[(\[]"
)  # what its delimiters begin with; only then fonts are needed
FONT = re.compile(rb'url\("?\./([\w.-]+\.woff2)"?\)')


def tree_page(tree: Tree, *, folder: Path | None = None) -> str:
    """A tree as an HTML document; `folder`, where its config lies, gives UCB and reasons.

    The page's policy allows its own script and style by their hashes, and nothing from elsewhere.
    Model text is data in it, and is shown as text.
    """
    config = search_config(folder) if folder else None
    data = tree_data(tree, c=config["search"]["c"] if config else None)
    task = task_of(folder) if folder else None
    data["verdicts"] = verdict_data(tree, task=task, classes=error_classes_config())
    script, style = assets.files()["viewer.js"], assets.files()["viewer.css"]
    if MATHEMATICS.search(json.dumps(data["nodes"]) + tree.problem):
        style = FONT.sub(_inline, style)
    else:
        style = re.sub(rb"@font-face\{[^}]*\}", b"", style)
    # In a script element only "</script" and "<!--" mean anything.
    script = script.replace(b"</script", b"<\\/script").replace(b"<!--", b"<\\!--")
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(tree.id)}</title><style>{style.decode()}</style></head>"
        '<body><div id="app"></div>'
        f'<script type="application/json" id="tree">{_data(data)}</script>'
        f"<script>{script.decode()}</script></body></html>\n"
    )


def _data(data: dict[str, Any]) -> str:
    return json.dumps(data).replace("<", "\\u003c")


def _hash(content: bytes) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


def _inline(found: re.Match[bytes]) -> bytes:
    font = base64.b64encode(assets.files()[found[1].decode()])
    return b'url("data:font/woff2;base64,' + font + b'")'
