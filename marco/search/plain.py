"""Plain sampling: whole chains of a problem, each for itself, in the form of a tree."""

from collections.abc import Callable
from dataclasses import replace

from marco.engines.protocol import Completion, Request
from marco.search.mcts import Search, Writer
from marco.search.pattern import PROMPT, Pattern
from marco.search.settings import SearchConfig
from marco.search.tree import Node, Tree
from marco.tasks.problem import Problem
from marco.tasks.verdict import CORRECT, NO_ANSWER, WRONG, Verdict

CHAIN = "chain"  # the kind of a node that holds one


def sample_chains(
    problem: Problem,
    *,
    task: str,
    verify: Callable[[str, Problem], Verdict],
    closing: str,
    pattern: Pattern,
    settings: SearchConfig,
    writer: Writer,
    seed: int,
    tokens: int,
) -> Search:
    """Sample chains until `tokens` are generated, as near as whole chains come to it; at least one.

    A chain ends at `closing`, and has as many tokens as the deepest one of a search. Each distinct
    one is a node below the prompt; the examples that the model sees are those of `pattern`.
    """
    chains: dict[str, Node] = {}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "requests": 0, "rollouts": 0}
    sampling = replace(writer.sampling, max_tokens=settings.node_tokens * settings.max_depth)
    n = 1
    while n:
        request = Request(
            key=f"{problem.id}/{CHAIN}/{usage['rollouts']}",
            problem=problem.id,
            model=writer.model,
            kind=CHAIN,
            prompt_ids=writer.prompt_ids(problem),
            n=n,
            stop=(closing,),
            sampling=sampling,
        )
        [response] = yield [request]
        usage["requests"] += 1
        usage["prompt_tokens"] += len(request.prompt_ids)
        for completion in response.completions:
            usage["rollouts"] += 1
            usage["completion_tokens"] += completion.tokens
            text = f"{completion.text.strip()}\n{closing}\n"
            if text in chains:
                chains[text].copies += 1
                continue
            verdict = _verdict(completion, text, verify, problem)
            chains[text] = Node(
                id=len(chains) + 1,
                parent=0,
                kind=CHAIN,
                model=writer.model,
                text=text,
                tokens=len(writer.encode(text)),
                finish=completion.finish,
                verdict=verdict.verdict,
                answer=verdict.answer,
            )
        left, spent = tokens - usage["completion_tokens"], usage["completion_tokens"]
        n = min(settings.wave, max(0, round(left * usage["rollouts"] / max(spent, 1))))
    return _tree(problem, list(chains.values()), usage, task, pattern, settings, writer, seed)


def _verdict(
    completion: Completion, text: str, verify: Callable[[str, Problem], Verdict], problem: Problem
) -> Verdict:
    if completion.finish == "length":
        return Verdict(NO_ANSWER, None, "the chain outran its tokens")
    return verify(text, problem)


def _tree(
    problem: Problem,
    chains: list[Node],
    usage: dict[str, int],
    task: str,
    pattern: Pattern,
    settings: SearchConfig,
    writer: Writer,
    seed: int,
) -> Tree:
    root = Node(id=0, parent=None, kind=PROMPT, model=None, text=problem.problem)
    for chain in chains:
        chain.visits = chain.copies
        chain.value = float(chain.copies * (chain.verdict == CORRECT))
        root.visits += chain.visits
        root.value += chain.value
    right, wrong = (sum(c.verdict == verdict for c in chains) for verdict in (CORRECT, WRONG))
    solved = "solved" if wrong or not settings.enough_wrong else "too_easy"
    return Tree(
        id=problem.id,
        task=task,
        problem=problem.problem,
        gold=problem.answer,
        pattern=pattern.name,
        models={CHAIN: writer.model},
        seed=seed,
        status=solved if right >= settings.accept_correct else "budget",
        usage=usage,
        nodes=[root, *chains],
    )
