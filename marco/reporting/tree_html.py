"""A tree as a page that stands alone: nested, foldable, without scripts; model text stays text."""

from html import escape

from marco.search.tree import Node, Tree
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG

# Okabe and Ito's colours, which the colour-blind can tell apart; the verdict is written out too.
COLOURS = {CORRECT: "#0072b2", WRONG: "#d55e00", NO_ANSWER: "#666666"}
OPEN_DEPTH = 2  # levels that are unfolded at first
STYLE = """
body { font: 14px/1.4 sans-serif; margin: 1em; color: #111; background: #fff }
details { margin: .2em 0 .2em .4em; padding-left: .8em; border-left: 2px solid #ccc }
summary { cursor: pointer }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .3em 0; font: 13px/1.4 monospace }
b { color: #fff; border-radius: .2em; padding: 0 .3em; font-weight: normal }
small { color: #444 }
"""


def tree_page(tree: Tree) -> str:
    """A tree as an HTML document: each node a `<details>` within its parent's.

    All text of the tree is escaped, and the page forbids scripts and anything from elsewhere.
    """
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(tree.id)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(tree.id)}</h1><p>{_facts(tree)}</p>"
        f"<pre>{escape(tree.problem)}</pre><p>answer: {escape(str(tree.gold))}</p>"
        f"{_nodes(tree)}</body></html>\n"
    )


def _facts(tree: Tree) -> str:
    models = ", ".join(f"{role}: {name}" for role, name in tree.models.items())
    usage = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in tree.usage.items())
    facts = [tree.task, f"pattern {tree.pattern}", tree.status, models, usage]
    return " · ".join(escape(fact) for fact in facts if fact)


def _nodes(tree: Tree) -> str:
    """The nodes below the prompt, which come depth-first: each closes those it does not lie in."""
    parts: list[str] = []
    path: list[int] = [0]  # from the prompt to the node before
    for node in tree.nodes[1:]:
        while path[-1] != node.parent:
            path.pop()
            parts.append("</details>")
        parts.append(_node(node, is_open=len(path) <= OPEN_DEPTH))
        path.append(node.id)
    return "".join(parts) + "</details>" * (len(path) - 1)


def _node(node: Node, *, is_open: bool) -> str:
    value = f"value {node.value / node.visits:.2f} of {node.visits} visits, " if node.visits else ""
    copies = f", {node.copies} copies" if node.copies > 1 else ""
    told = escape(f"{node.model or ''} · {value}{node.tokens} tokens{copies}")
    verdict = ""
    if node.verdict is not None:
        answer = "" if node.answer is None else f": {node.answer}"
        colour = COLOURS.get(node.verdict, COLOURS[NO_ANSWER])
        verdict = f' <b style="background:{colour}">{escape(node.verdict + answer)}</b>'
    return (
        f"<details{' open' if is_open else ''}><summary>{escape(node.kind)}{verdict} "
        f"<small>{told}</small></summary><pre>{escape(node.text)}</pre>"
    )
