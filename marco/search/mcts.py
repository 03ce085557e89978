"""Monte Carlo tree search over typed thoughts: one tree, as a pure function of its completions.

The search of a tree is a generator: it yields the requests it waits for and is sent their
responses. It holds no clock, no thread and no global randomness, so the same completions give the
same tree, whatever ran beside it.
"""

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

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
        self.backtracks = self.rollouts = self.correct = self.wrong = 0
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0, "requests": 0}

    def run(self) -> Search:
        """Search until a stopping rule holds; returns the tree."""
        self._close_upwards(self.nodes[0])  # at once, where max_depth leaves no way to an answer
        while (status := self._status()) is None:
            node = self._select()
            yield from self._roll_out(node)
        return self._tree(status)

    # Selection ---------------------------------------------------------------------------------

    def _select(self) -> Node:
        """From the root by UCB to a node that has room for children, or to a finished leaf."""
        node = self.nodes[0]
        while node.verdict is None and not self._room(node):
            candidates = [n for n in self.children[node.id] if n.id not in self.closed]
            node = best(candidates, max(node.visits, 1), c=self.settings.c, rng=self.rng)
        return node

    def _room(self, node: Node) -> dict[str, int]:
        """How many children of each kind may still be written below a node."""
        path = self._path(node)
        row = self.pattern.row(
            [PROMPT, *(n.kind for n in path)],
            wrong_below=node.id in self.wrong_below,
            left=self.settings.max_depth - len(path),
        )
        drafted = self.drafted[node.id]
        return {k: n - drafted.get(k, 0) for k, n in row.items() if n > drafted.get(k, 0)}

    # Expansion and rollout ---------------------------------------------------------------------

    def _roll_out(self, node: Node) -> Generator[list[Request], list[Response], None]:
        """Expand the node wholly, then go on down from one of its children to an answer."""
        kinds = [kind for kind, n in self._room(node).items() for _ in range(n)]
        leaves = [node] if node.verdict is not None else []
        while node.verdict is None:
            new = yield from self._expand(node, kinds[: self._affordable(len(leaves))])
            if self.settings.count == "distinct":
                leaves += [n for n in new if n.verdict is not None]
                new = [n for n in new if n.verdict is None]
            if not new:
                self._close_upwards(node)
                break
            node = self.rng.choice(new)
            kinds = [kind for kind, n in self._room(node).items() for _ in range(n)]
            if node.verdict is not None:
                leaves.append(node)
            kinds = self.rng.sample(kinds, k=min(1, len(kinds)))
        for leaf in leaves:
            self._backpropagate(leaf)
        for leaf in leaves:
            if leaf.verdict == "wrong" and (earlier := self._backtrack(leaf)) is not None:
                yield from self._roll_out(earlier)

    def _affordable(self, pending: int) -> int:
        """How many more nodes no budget forbids; `pending` leaves are not yet counted."""
        s = self.settings
        tokens_left = s.max_tokens - self.usage["completion_tokens"]
        rollouts_left = s.max_rollouts - self.rollouts - pending
        return max(
            0, min(rollouts_left, s.max_nodes - len(self.nodes), tokens_left // s.node_tokens)
        )

    def _expand(
        self, node: Node, kinds: list[str]
    ) -> Generator[list[Request], list[Response], list[Node]]:
        """Write children of the given kinds; returns the new ones, duplicates merged."""
        drafts = [_Draft(kind=k, prefix=self.rng.choice(self.kinds[k].prefixes)) for k in kinds]
        requests = self._requests(node, drafts)
        responses = (yield [r for r, _ in requests]) if requests else []
        answered = {response.key: response for response in responses}
        new: list[Node] = []
        for draft in dict.fromkeys(drafts):
            if self._is_complete(draft):
                written = [(Completion(text="", tokens=0, finish="stop"), None)]
                written *= drafts.count(draft)
            else:
                request = next(r for r, d in requests if d == draft)
                self._count(request, answered[request.key])
                written = [(c, request.model) for c in answered[request.key].completions]
            for completion, model in written:
                child = self._add(node, draft, completion, model)
                if child is not None:
                    new.append(child)
        if self.settings.count == "distinct":  # only now: a later sibling keeps the parent open
            for child in new:
                if child.verdict is not None:
                    self._close_upwards(child)
        return new

    def _requests(self, node: Node, drafts: list[_Draft]) -> list[tuple[Request, _Draft]]:
        """One request per distinct draft, for as many samples as it was drawn."""
        path_text = "".join(n.text for n in self._path(node))
        requests = []
        for draft in dict.fromkeys(drafts):
            if self._is_complete(draft):
                continue
            kind, writer = self.kinds[draft.kind], self.writers[draft.kind]
            prefill = *writer.encode(path_text), *writer.encode(kind.opening + draft.prefix)
            first = self.drafted[node.id].get(draft.kind, 0)
            prefix = kind.prefixes.index(draft.prefix)
            requests.append(
                (
                    Request(
                        key=f"{self.problem.id}/{node.id}/{draft.kind}.{prefix}/{first}",
                        model=writer.model,
                        prompt_ids=writer.prompt_ids(self.problem) + prefill,
                        n=drafts.count(draft),
                        stop=(kind.closing,),
                        sampling=writer.sampling,
                    ),
                    draft,
                )
            )
        for draft in drafts:
            self.drafted[node.id][draft.kind] = self.drafted[node.id].get(draft.kind, 0) + 1
        return requests

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
            tokens=len(self.writers[draft.kind].encode(text)),
            finish=completion.finish,
        )
        self.nodes.append(node)
        self.children[parent.id].append(node)
        self.children[node.id], self.drafted[node.id] = [], {}
        if completion.finish == "length":
            self._end(node, Verdict(NO_ANSWER, None, "the node outran node_tokens"))
        elif any(kind.opening.strip() in completion.text for kind in self.kinds.values()):
            self._end(node, Verdict(NO_ANSWER, None, "the node opens another node"))
        elif draft.kind == ANSWER:
            chain = "".join(n.text for n in self._path(node))
            self._end(node, self.verify(chain, self.problem))
        return node

    # Reward and backpropagation ----------------------------------------------------------------

    def _end(self, node: Node, verdict: Verdict) -> None:
        """Give a chain its verdict; a leaf that nobody visits again counts here, once."""
        node.verdict, node.answer = verdict.verdict, verdict.answer
        if self.settings.count == "distinct":
            self.correct += verdict.verdict == "correct"
            self.wrong += verdict.verdict == "wrong"

    def _close_upwards(self, node: Node) -> None:
        """Close a node, and every ancestor below which nothing is left to do."""
        if node.verdict is None and (self._room(node) or self._open_children(node)):
            return
        self.closed.add(node.id)
        if node.parent is not None:
            self._close_upwards(self.nodes[node.parent])

    def _open_children(self, node: Node) -> bool:
        return any(child.id not in self.closed for child in self.children[node.id])

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
        spent = self.backtracks >= self.settings.max_backtracks or self._affordable(0) == 0
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

    def _status(self) -> str | None:
        """The tree's status once a stopping rule holds, None before."""
        over = self._affordable(0) == 0
        exhausted = 0 in self.closed
        if not (over or exhausted or self._has_enough()):
            return None
        if self.correct >= self.settings.accept_correct:
            return "solved" if self.wrong or not self.settings.enough_wrong else "too_easy"
        return "budget" if over and not exhausted else "unsolved"

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
