"""A finished search once more, step by step, from what the engines answered.

The search is a pure function of its completions, so it needs no model, no tokenizer and no verifier
here: completions come from the journal beside the trees, verdicts from the tree.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from marco.engines.protocol import Completion, Request, Response, Sampling
from marco.errors import UserError
from marco.search.mcts import Search, TreeSearch, Writer
from marco.search.pattern import AnyPattern, NodeKind, Pattern
from marco.search.settings import SearchConfig
from marco.search.tree import Node, Tree
from marco.search.ucb import ucb
from marco.tasks.problem import Problem
from marco.tasks.verdict import Verdict

Step = dict[str, Any]
UNKNOWN = Verdict("no_answer", None, "the tree has no such chain")
NOT_ASKED = Sampling(temperature=1.0, top_p=1.0, max_tokens=1)  # no engine is asked
COMPARED = ("parent", "kind", "text", "visits", "value", "finish", "verdict", "answer", "copies")


def replay(tree: Tree, config: Mapping[str, Any], journals: Sequence[Path]) -> list[Step]:
    """The steps of the search that made `tree`, in order.

    `config` is the trees' stage config (search, pattern, kinds, models). Each step has a `wave`
    (from 0 on), an `event` and the ids of its nodes: `selection` (`path`; `scores`: at each level
    the children's ids and UCB, None where infinite), `backtrack` (`leaf`, `node`), `expansion`
    (`node`), `copy` (`node`: the sibling it is merged into), `verdict` (`node`), `backpropagation`
    (`leaf`, `reward`, `path`). UserError where the journal lacks a response, or gives another tree.
    """
    search = _search(tree, config)
    responses = _responses(journals, tree.id)
    try:
        made = _run(search.run(), responses)
    except KeyError as error:
        raise UserError(
            f"{tree.id} cannot be replayed: {error.args[0]} is not in the journal beside the trees"
        ) from error
    if [_compared(node) for node in made.nodes] != [_compared(node) for node in tree.nodes]:
        raise UserError(
            f"{tree.id} cannot be replayed: its journal now gives another tree "
            "(the search was changed since)"
        )
    return [_with_ids(step) for step in search.steps]


class _RecordedSearch(TreeSearch):
    """A search that writes down what it does, with nodes in place of ids until it is over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps: list[Step] = []
        self.wave = -1

    def _tell(self, event: str, **values: Any) -> None:
        self.steps.append({"wave": self.wave, "event": event, **values})

    def _start_rollouts(self) -> None:
        self.wave += 1
        super()._start_rollouts()

    def _start(self, node: Node) -> None:
        if not self.steps or self.steps[-1]["event"] != "backtrack":
            path = [self.nodes[0], *self._path(node)]
            scores = [self._scores(passed) for passed in path[:-1]]
            self._tell("selection", path=path, scores=scores)
        super()._start(node)

    def _scores(self, node: Node) -> list[tuple[Node, float | None]]:
        """What the children of a node were chosen by."""
        visits = max(node.visits + self.underway[node.id], 1)
        scores = []
        for child in self.children[node.id]:
            own = child.visits + self.underway[child.id]
            score = ucb(child.value, own, visits, c=self.settings.c) if own else None
            scores.append((child, score))
        return scores

    def _add(self, parent: Node, draft: Any, completion: Completion, model: str | None) -> Any:
        place = len(self.steps)
        node = super()._add(parent, draft, completion, model)
        if node is not None:
            self._tell("expansion", node=node)
            self.steps.insert(place, self.steps.pop())  # before its verdict
            return node
        text = self.kinds[draft.kind].write(draft.prefix, completion.text)
        siblings = self.children[parent.id]
        same = next(n for n in siblings if (n.kind, n.text) == (draft.kind, text))
        self._tell("copy", node=same)
        return None

    def _end(self, node: Node, verdict: Verdict) -> None:
        super()._end(node, verdict)
        self._tell("verdict", node=node)

    def _backpropagate(self, leaf: Node) -> None:
        super()._backpropagate(leaf)
        reward = 1 if leaf.verdict == "correct" else 0
        path = [self.nodes[0], *self._path(leaf)]
        self._tell("backpropagation", leaf=leaf, reward=reward, path=path)

    def _backtrack(self, leaf: Node) -> Node | None:
        earlier = super()._backtrack(leaf)
        if earlier is not None:
            self._tell("backtrack", leaf=leaf, node=earlier)
        return earlier


def _search(tree: Tree, config: Mapping[str, Any]) -> _RecordedSearch:
    pattern: Any = TypeAdapter(AnyPattern).validate_python(config["pattern"])
    if not isinstance(pattern, Pattern):
        pattern = next(p for p in pattern.options.values() if p.name == tree.pattern)
    verdicts = {
        "".join(n.text for n in tree.path(node.id)): Verdict(node.verdict, node.answer, "")
        for node in tree.nodes
        if node.verdict is not None
    }
    writers = {
        kind: Writer(
            model=model,
            prompt_ids=lambda problem: (),
            encode=lambda text: (),
            sampling=NOT_ASKED,
        )
        for kind, model in config["models"]["roles"].items()
    }
    return _RecordedSearch(
        Problem(id=tree.id, problem=tree.problem, answer=tree.gold),
        task=tree.task,
        verify=lambda chain, problem: verdicts.get(chain, UNKNOWN),
        kinds={name: NodeKind(**kind) for name, kind in config["kinds"].items()},
        pattern=pattern,
        settings=SearchConfig(**config["search"]),
        writers=writers,
        seed=tree.seed,
    )


def _run(search: Search, responses: Mapping[str, Response]) -> Tree:
    requests: list[Request] = next(search)
    while True:
        try:
            requests = search.send([responses[request.key] for request in requests])
        except StopIteration as done:
            return done.value


def _responses(journals: Sequence[Path], problem: str) -> dict[str, Response]:
    """What the engines answered for a problem, by the keys of the requests."""
    found = {}
    for path in journals:
        # Without its log a file can be read where nothing may be written, as if it never changed.
        log = path.with_name(f"{path.name}-wal")
        mode = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as file:
                rows = file.execute(
                    "SELECT key, completions FROM completions WHERE problem = ?", (problem,)
                ).fetchall()
        except sqlite3.Error as error:
            raise UserError(f"cannot read the journal {path}: {error}") from error
        for key, text in rows:
            completions = [Completion(text=t, tokens=n, finish=f) for t, n, f in json.loads(text)]
            found[key] = Response(key=key, completions=tuple(completions))
    return found


def _compared(node: Node) -> tuple[Any, ...]:
    return tuple(getattr(node, name) for name in COMPARED)


def _with_ids(step: Any) -> Any:
    """A step with ids for nodes: those of the finished tree, whose nodes were renumbered."""
    if isinstance(step, Node):
        return step.id
    if isinstance(step, Mapping):
        return {name: _with_ids(value) for name, value in step.items()}
    if isinstance(step, list | tuple):
        return [_with_ids(value) for value in step]
    return step
