"""What a search tells the person: while it runs, and at its end."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from marco.engines.protocol import Request, Response
from marco.progress import Progress
from marco.search.scheduler import Scheduler
from marco.search.tree import Tree


class SearchReport:
    """The live display of a search.

    `known` are the tokens of each tree that was finished before. What is answered from the journal
    counts as done, but has no part in the rates, nor in the ETA.
    """

    def __init__(self, problems: int, known: Mapping[int, int], scheduler: Scheduler) -> None:
        self.progress = Progress("trees", problems, "problems")
        self.problems, self.scheduler = problems, scheduler
        self.done, self.finished_tokens = len(known), sum(known.values())
        self.known_tokens = self.tokens = self.finished_tokens
        self.prompt_tokens = self.cached_tokens = self.nodes = 0
        self.grown = self.solved = self.grown_tokens = 0  # since this process began

    def on_response(self, request: Request, response: Response) -> None:
        tokens = sum(completion.tokens for completion in response.completions)
        self.tokens += tokens
        if response.is_replayed:
            self.known_tokens += tokens
        else:
            self.nodes += request.n
            self.prompt_tokens += len(request.prompt_ids)
            self.cached_tokens += response.cached_tokens
        if self.progress.is_due():
            self._tell()

    def on_tree(self, tree: Tree) -> None:
        self.done += 1
        self.grown += 1
        self.solved += tree.status == "solved"
        self.finished_tokens += tree.usage["completion_tokens"]
        self.grown_tokens += tree.usage["completion_tokens"]
        self._tell()

    def close(self) -> None:
        self._tell()
        self.progress.close()

    def _tell(self) -> None:
        # Many trees are open side by side, so the tokens tell what is done, and not the trees.
        expected = self.problems * self.finished_tokens / self.done if self.done else 0.0
        self.progress.update(
            self.done,
            share=min(self.tokens / expected, 1.0) if expected else 0.0,
            known_share=min(self.known_tokens / expected, 1.0) if expected else 0.0,
            running=self.scheduler.open,
            solved=f"{self.solved} ({_percent(self.solved, self.grown)})",
            tokens_per_solved=round(self.grown_tokens / self.solved) if self.solved else "–",
            nodes_per_s=self.progress.rate(self.nodes),
            tokens_per_s=self.progress.rate(self.tokens - self.known_tokens),
            engine_full=f"{self.scheduler.fullness:.0%}",
            cached=_percent(self.cached_tokens, self.prompt_tokens),
        )


def summary(trees: Iterable[Tree]) -> list[str]:
    """What the search found, in lines for the terminal."""
    status, total = Counter[str](), Counter[str | None]()
    count = mixed = copies = 0
    for tree in trees:
        verdicts = Counter(node.verdict for node in tree.nodes)
        count += 1
        status[tree.status] += 1
        total += verdicts
        mixed += verdicts["correct"] > 0 and verdicts["wrong"] > 0
        copies += sum(node.copies - 1 for node in tree.nodes)
    return [
        f"trees {count}: " + ", ".join(f"{k} {n}" for k, n in status.most_common()),
        f"chains: correct {total['correct']}, wrong {total['wrong']}, "
        f"no answer {total['no_answer']}; duplicate siblings merged {copies}",
        f"trees with a correct and a wrong chain: {mixed} ({_percent(mixed, count)})",
    ]


def cost_table(costs: Sequence[tuple[str, str, int, int, int, int]]) -> list[str]:
    """What each model wrote, by kind of node: lines of a table, the sums last."""
    sums = [sum(numbers) for numbers in zip(*(row[2:] for row in costs), strict=True)] or [0] * 4
    lines = [
        f"{'model':12} {'kind':14} {'requests':>9} {'prompt':>12} {'cached':>7} {'generated':>12}"
    ]
    for model, kind, requests, prompt, cached, tokens in [*costs, ("all", "", *sums)]:
        lines.append(
            f"{model:12} {kind:14} {requests:9,} {prompt:12,} {_percent(cached, prompt):>7} "
            f"{tokens:12,}"
        )
    return lines


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"
