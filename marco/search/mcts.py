"""Monte Carlo tree search over typed thoughts: one tree, as a pure function of its completions.

The search of a tree is a generator: it yields the requests it waits for and is sent their
responses. It holds no clock, no thread and no global randomness, so the same completions give the
same tree, whatever ran beside it.

Several rollouts go on at once. They take their steps together: what all of them ask for is one list
of requests, and what comes back is committed in the order in which they were started.
"""

import random
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

from marco.engines.protocol import Completion, Request, Response, Sampling
from marco.search.pattern import ANSWER, PROMPT, Kinds, Pattern
from marco.search.settings import SearchConfig
from marco.search.tree import Node, Tree
from marco.search.ucb import best
from marco.tasks.problem import Problem
from marco.tasks.verdict import NO_ANSWER, Verdict

Search = Generator[list[Request], list[Response], Tree]


@dataclass(frozen=True, kw_only=True)
class Writer:
    """The model that writes a kind of node: its prompt and tokenizer, and how it samples."""

    model: str
    prompt_ids: Callable[[Problem], tuple[int, ...]]
    encode: Callable[[str], Sequence[int]]
    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A child that is to be written: its kind, and the prefix that was drawn for it."""

    kind: str
    prefix: str


@dataclass(kw_only=True, eq=False)
class _Rollout:
    """A walk from a selected node down to an answer, under way."""

    node: Node
    kinds: list[str]  # of the children that are to be written below the node
    drafts: list[_Draft] = field(default_factory=list)  # of the children that are being written
    requests: list[Request] = field(default_factory=list)
    leaves: list[Node] = field(default_factory=list)


class TreeSearch:
    """Selection, expansion, rollout, reward, backpropagation and error backtracking of one tree."""

    def __init__(
        self,
        problem: Problem,
        *,
        task: str,
        verify: Callable[[str, Problem], Verdict],
        kinds: Kinds,
        pattern: Pattern,
        settings: SearchConfig,
        writers: Mapping[str, Writer],
        seed: int,
    ) -> None:
        self.problem, self.task, self.verify = problem, task, verify
        self.kinds, self.pattern, self.settings = kinds, pattern, settings
        self.writers, self.seed = writers, seed
        self.rng = random.Random(f"{seed}/{problem.id}")
        root = Node(id=0, parent=None, kind=PROMPT, model=None, text="")
        self.nodes = [root]
        self.children: dict[int, list[Node]] = {0: []}
        self.drafted: dict[int, dict[str, int]] = {0: {}}
        self.wrong_below: set[int] = set()
        self.closed: set[int] = set()
        self.active: list[_Rollout] = []
        self.underway: Counter[int] = Counter()  # rollouts below a node: its virtual loss
        self.openings = tuple(kind.opening.strip() for kind in kinds.values())
        self.rows: dict[tuple[int, bool], Mapping[str, int]] = {}  # by node, and if wrong is below
        self.ids: dict[tuple[int, str], Sequence[int]] = {}
        self.paths = {0: "0"}  # by node: its ordinal below each ancestor
        self.ended: list[tuple[Node, int]] = []  # chains as they ended, and the tokens until then
        self.backtracks = self.rollouts = self.correct = self.wrong = 0
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0, "requests": 0}

    def run(self) -> Search:
        """Search until a stopping rule holds; returns the tree."""
        self._close_upwards(self.nodes[0])  # at once, where max_depth leaves no way to an answer
        while True:
            self._start_rollouts()
            if not self.active:
                break
            requests = [request for rollout in self.active for request in rollout.requests]
            responses = (yield requests) if requests else []
            answered = {response.key: response for response in responses}
            for rollout in list(self.active):
                self._go_on(rollout, answered)
        return self._tree(self._status())

    # Selection ---------------------------------------------------------------------------------

    def _start_rollouts(self) -> None:
        """Fill the wave: leaves are selected one after the other, each with a virtual loss."""
        while len(self.active) < self.settings.wave and not self._is_over():
            node = self._select()
            if node is None:  # all that is left to do waits for rollouts that are under way
                return
            self._start(node)

    def _start(self, node: Node) -> None:
        """Begin a rollout: the selected node is expanded wholly."""
        for passed in [self.nodes[0], *self._path(node)]:
            self.underway[passed.id] += 1
        rollout = _Rollout(node=node, kinds=self._kinds_to_come(node))
        self.active.append(rollout)
        if node.verdict is not None:
            rollout.leaves.append(node)
        else:
            self._draft(rollout)

    def _select(self) -> Node | None:
        """From the root by UCB to a node that has room for children, or to a finished leaf."""
        busy: set[int] = set()  # no child is there yet below which there is something to do
        while 0 not in busy and 0 not in self.closed:
            node = self.nodes[0]
            while node.verdict is None and not self._room(node):
                blocked = self.closed | busy
                candidates = [n for n in self.children[node.id] if n.id not in blocked]
                if not candidates:
                    busy.add(node.id)
                    break
                visits = max(node.visits + self.underway[node.id], 1)
                node = best(candidates, visits, self.underway, c=self.settings.c, rng=self.rng)
            else:
                return node
        return None

    def _room(self, node: Node) -> dict[str, int]:
        """How many children of each kind may still be written below a node."""
        row, drafted = self._row(node), self.drafted[node.id]
        return {k: n - drafted.get(k, 0) for k, n in row.items() if n > drafted.get(k, 0)}

    def _row(self, node: Node) -> Mapping[str, int]:
        """How many children of each kind a node may have in all."""
        key = node.id, node.id in self.wrong_below
        if (row := self.rows.get(key)) is None:
            path = self._path(node)
            row = self.rows[key] = self.pattern.row(
                [PROMPT, *(n.kind for n in path)],
                wrong_below=node.id in self.wrong_below,
                left=self.settings.max_depth - len(path),
            )
        return row

    def _kinds_to_come(self, node: Node) -> list[str]:
        return [kind for kind, n in self._room(node).items() for _ in range(n)]

    # Expansion and rollout ---------------------------------------------------------------------

    def _draft(self, rollout: _Rollout) -> None:
        """Ask for the children that a rollout is to have, as far as the budgets go."""
        node = rollout.node
        kinds = rollout.kinds[: self._affordable(rollout)]
        rollout.drafts = [
            _Draft(kind=k, prefix=self.rng.choice(self.kinds[k].prefixes)) for k in kinds
        ]
        rollout.requests = [
            self._request(node, draft, rollout.drafts.count(draft))
            for draft in dict.fromkeys(rollout.drafts)
            if not self._is_complete(draft)
        ]
        for kind in kinds:
            self.drafted[node.id][kind] = self.drafted[node.id].get(kind, 0) + 1

    def _go_on(self, rollout: _Rollout, answered: Mapping[str, Response]) -> None:
        """Commit what a rollout has asked for, then let it go on down, or end."""
        new = self._commit(rollout, answered)
        if self.settings.count == "distinct":
            rollout.leaves += [n for n in new if n.verdict is not None]
            new = [n for n in new if n.verdict is None]
        if not new:
            if rollout.node.verdict is None:
                self._close_upwards(rollout.node)
            self._end_rollout(rollout)
            return
        node = rollout.node = self.rng.choice(new)
        self.underway[node.id] += 1
        if node.verdict is not None:
            rollout.leaves.append(node)
            self._end_rollout(rollout)
            return
        kinds = self._kinds_to_come(node)
        rollout.kinds = self.rng.sample(kinds, k=min(1, len(kinds)))
        self._draft(rollout)

    def _commit(self, rollout: _Rollout, answered: Mapping[str, Response]) -> list[Node]:
        """Add the children that were written; returns the new ones, duplicates merged."""
        parent, drafts, requests = rollout.node, rollout.drafts, iter(rollout.requests)
        new: list[Node] = []
        for draft in dict.fromkeys(drafts):
            if self._is_complete(draft):
                written = [(Completion(text="", tokens=0, finish="stop"), None)]
                written *= drafts.count(draft)
            else:
                request = next(requests)
                self._count(request, answered[request.key])
                written = [(c, request.model) for c in answered[request.key].completions]
            for completion, model in written:
                child = self._add(parent, draft, completion, model)
                if child is not None:
                    new.append(child)
        rollout.drafts, rollout.requests = [], []
        if self.settings.count == "distinct":  # only now: a later sibling keeps the parent open
            for child in new:
                if child.verdict is not None:
                    self._close_upwards(child)
        return new

    def _end_rollout(self, rollout: _Rollout) -> None:
        """Count its leaves, and mend what was wrong."""
        self.active.remove(rollout)
        for passed in [self.nodes[0], *self._path(rollout.node)]:
            self.underway[passed.id] -= 1
        for leaf in rollout.leaves:
            self._backpropagate(leaf)
        for leaf in rollout.leaves:
            if leaf.verdict == "wrong" and (earlier := self._backtrack(leaf)) is not None:
                self._start(earlier)

    def _affordable(self, rollout: _Rollout | None = None) -> int:
        """How many more nodes no budget forbids to a rollout, or to a new one.

        What the others may still need is put aside: their nodes that are being written, each of
        which may end a chain, and a chain for each rollout.
        """
        s = self.settings
        others = [other for other in self.active if other is not rollout]
        written = sum(len(other.drafts) for other in others)
        chains = sum(max(1, len(r.leaves) + len(r.drafts)) for r in others)
        chains += len(rollout.leaves) if rollout is not None else 0
        tokens_left = s.max_tokens - self.usage["completion_tokens"]
        return max(
            0,
            min(
                s.max_rollouts - self.rollouts - chains,
                s.max_nodes - len(self.nodes) - written,
                tokens_left // s.node_tokens - written,
            ),
        )

    def _request(self, node: Node, draft: _Draft, n: int) -> Request:
        """A request for `n` children of a kind and prefix.

        Its ids are those of the node's path and the beginning of the child, so that they only grow
        from parent to child, and the engine's prefix cache holds what the parent's request left.
        """
        kind, writer = self.kinds[draft.kind], self.writers[draft.kind]
        ids = list(writer.prompt_ids(self.problem))
        for passed in self._path(node):
            ids += self._encoded(passed, writer)
        ids += writer.encode(kind.opening + draft.prefix)
        first = self.drafted[node.id].get(draft.kind, 0)
        prefix = kind.prefixes.index(draft.prefix)
        return Request(
            key=f"{self.problem.id}/{self.paths[node.id]}/{draft.kind}.{prefix}/{first}",
            problem=self.problem.id,
            model=writer.model,
            kind=draft.kind,
            prompt_ids=tuple(ids),
            n=n,
            stop=(kind.closing,),
            sampling=writer.sampling,
        )

    def _encoded(self, node: Node, writer: Writer) -> Sequence[int]:
        """A node's text in the ids of a writer's model."""
        ids = self.ids.get((node.id, writer.model))
        if ids is None:
            ids = self.ids[node.id, writer.model] = writer.encode(node.text)
        return ids

    def _is_complete(self, draft: _Draft) -> bool:
        return self.kinds[draft.kind].closing in draft.prefix

    def _count(self, request: Request, response: Response) -> None:
        self.usage["requests"] += 1
        self.usage["prompt_tokens"] += len(request.prompt_ids)
        self.usage["completion_tokens"] += sum(c.tokens for c in response.completions)

    def _add(
        self, parent: Node, draft: _Draft, completion: Completion, model: str | None
    ) -> Node | None:
        """Add a child, or count it as a copy of a sibling of the same kind and text (None)."""
        text = self.kinds[draft.kind].write(draft.prefix, completion.text)
        for sibling in self.children[parent.id]:
            if (sibling.kind, sibling.text) == (draft.kind, text):
                sibling.copies += 1
                return None
        node = Node(
            id=len(self.nodes),
            parent=parent.id,
            kind=draft.kind,
            model=model,
            text=text,
            finish=completion.finish,
        )
        node.tokens = len(self._encoded(node, self.writers[draft.kind]))
        self.nodes.append(node)
        self.paths[node.id] = f"{self.paths[parent.id]}.{len(self.children[parent.id])}"
        self.children[parent.id].append(node)
        self.children[node.id], self.drafted[node.id] = [], {}
        if completion.finish == "length":
            self._end(node, Verdict(NO_ANSWER, None, "the node outran node_tokens"))
        elif any(opening in completion.text for opening in self.openings):
            self._end(node, Verdict(NO_ANSWER, None, "the node opens another node"))
        elif draft.kind == ANSWER:
            chain = "".join(n.text for n in self._path(node))
            self._end(node, self.verify(chain, self.problem))
        return node

    # Reward and backpropagation ----------------------------------------------------------------

    def _end(self, node: Node, verdict: Verdict) -> None:
        """Give a chain its verdict; a leaf that nobody visits again counts here, once."""
        node.verdict, node.answer = verdict.verdict, verdict.answer
        self.ended.append((node, self.usage["completion_tokens"]))
        if self.settings.count == "distinct":
            self.correct += verdict.verdict == "correct"
            self.wrong += verdict.verdict == "wrong"

    def _close_upwards(self, node: Node) -> None:
        """Close a node, and every ancestor below which nothing is left to do."""
        if node.verdict is None and (
            self._room(node) or self._open_children(node) or self._is_written_below(node)
        ):
            return
        self.closed.add(node.id)
        if node.parent is not None:
            self._close_upwards(self.nodes[node.parent])

    def _open_children(self, node: Node) -> bool:
        return any(child.id not in self.closed for child in self.children[node.id])

    def _is_written_below(self, node: Node) -> bool:
        return any(rollout.node is node and rollout.drafts for rollout in self.active)

    def _backpropagate(self, leaf: Node) -> None:
        self.rollouts += 1
        reward = 1.0 if leaf.verdict == "correct" else 0.0
        if self.settings.count == "visits":
            self.correct += leaf.verdict == "correct"
            self.wrong += leaf.verdict == "wrong"
        for node in [self.nodes[0], *self._path(leaf)]:
            node.visits += 1
            node.value += reward

    def _backtrack(self, leaf: Node) -> Node | None:
        """The thought before a wrong answer, or None where no mending thought may follow it."""
        earlier = self.nodes[leaf.parent or 0]
        spent = self.backtracks >= self.settings.max_backtracks or self._affordable() == 0
        if spent or self._has_enough() or earlier.id in self.wrong_below:
            return None
        self.wrong_below.add(earlier.id)
        if not self._room(earlier).keys() & self.pattern.on_wrong.keys():
            return None
        self.backtracks += 1
        for node in [self.nodes[0], *self._path(earlier)]:
            self.closed.discard(node.id)
        return earlier

    # Stopping ----------------------------------------------------------------------------------

    def _has_enough(self) -> bool:
        """Whether the chains that were looked for are found."""
        s = self.settings
        solved = self.correct >= s.accept_correct
        enough = self.correct >= s.enough_correct and self.wrong >= s.enough_wrong
        accepted = self.rollouts >= s.accept_rollouts and solved and self.wrong >= s.enough_wrong
        return enough or accepted

    def _is_hopeless(self) -> bool:
        """Whether so many chains were wrong that a right one is not worth more tokens."""
        return self.correct == 0 and self.rollouts >= self.settings.give_up_rollouts

    def _is_over(self) -> bool:
        """Whether a stopping rule forbids another rollout; those under way go on."""
        is_exhausted = 0 in self.closed
        enough = self._has_enough() or self._is_hopeless()
        return is_exhausted or enough or self._affordable() == 0

    def _status(self) -> str:
        """The status of a tree whose search is over."""
        if self.correct >= self.settings.accept_correct:
            return "solved" if self.wrong or not self.settings.enough_wrong else "too_easy"
        is_spent = self._affordable() == 0 and 0 not in self.closed
        return "budget" if is_spent else "unsolved"

    def _path(self, node: Node) -> list[Node]:
        path = []
        while node.parent is not None:
            path.append(node)
            node = self.nodes[node.parent]
        return path[::-1]

    def _tree(self, status: str) -> Tree:
        """The finished tree, its nodes renumbered depth-first."""
        order: list[Node] = []
        stack = [self.nodes[0]]
        while stack:
            node = stack.pop()
            order.append(node)
            stack += reversed(self.children[node.id])
        number = {node.id: i for i, node in enumerate(order)}
        for node in order:
            node.parent = None if node.parent is None else number[node.parent]
        for i, node in enumerate(order):
            node.id = i
        order[0].text = self.problem.problem
        return Tree(
            id=self.problem.id,
            task=self.task,
            problem=self.problem.problem,
            gold=self.problem.answer,
            pattern=self.pattern.name,
            models={
                kind: w.model for kind, w in self.writers.items() if kind in self.pattern.kinds
            },
            seed=self.seed,
            status=status,
            usage=self.usage | {"rollouts": self.rollouts},
            nodes=order,
        )
