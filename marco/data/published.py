"""Published long-CoT sets as SFT data: the baselines that chains from trees are compared with.

Sample, as Sky-T1 is published: `{"system": "Your role …", "conversations": [{"from": "user",
"value": "How many …?"}, {"from": "assistant", "value": "<|begin_of_thought|>\\n\\n…"}]}`

- `conversations` with `from` (user or human, assistant or gpt) and `value` (ShareGPT; Sky-T1,
  OpenThoughts), or `messages` with `role` and `content` (Open-R1 and conversions of it); a system
  prompt in a column `system` or as the first turn. The completion is the last assistant turn, what
  comes before it the prompt.
- `problem`, `generations` and `correctness_math_verify`, a mark for each (Open-R1): with
  `take: correct_generations` each generation is a chain, and the ones marked right are learnt.

Their marks are the source's. Control words such as `<|begin_of_thought|>` are ordinary text to a
student that does not have them as tokens.
"""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from marco.data.chains import Encode
from marco.data.statistics import spread
from marco.errors import UserError
from marco.tasks.files import read_rows, whole
from marco.tasks.problem import Problem
from marco.tasks.verdict import CORRECT, WRONG

UNMARKED = "unmarked"
BUCKET = "published"
COLUMNS = ("conversations", "messages")
MARKS = ("correctness_math_verify", "correctness_llama")
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
THINK_TAGS = {
    "<|begin_of_thought|>": "<think>",
    "<|end_of_thought|>": "</think>",
    "<|begin_of_solution|>": "",
    "<|end_of_solution|>": "",
}
# What the sets say to every problem besides the problem.
INSTRUCTIONS = (
    "Return your final response within \\boxed{}.",
    "Please reason step by step, and put your final answer within \\boxed{}.",
)
Row = dict[str, Any]
Message = dict[str, str]


class PublishedConfig(BaseModel):
    """Where a published set comes from, and in which form it is learnt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hub: str
    subset: str | None
    split: str
    file: str | None
    take: Literal["conversation", "correct_generations"]
    thoughts: Literal["as_published", "think_tags"]
    system: bool
    rows: PositiveInt | None


@dataclass(frozen=True, kw_only=True)
class PublishedChain:
    """A chain of a set; `mark` is `correct` or `wrong` as the source says, or `unmarked`."""

    prompt: Sequence[Message]
    text: str
    mark: str

    @property
    def digest(self) -> bytes:
        """What two chains share that say the same to the same prompt."""
        return hashlib.sha256(json.dumps([self.prompt, self.text]).encode()).digest()


def build_published(
    config: PublishedConfig,
    *,
    encode: Encode,
    per_row: int,
    max_tokens: int,
    classify: Callable[[str], Collection[str]],
    drop: Collection[str],
    rng: random.Random,
) -> tuple[list[Row], dict[str, Any]]:
    """SFT rows of a published set, with the columns and statistics of `build_sft`.

    Of each row of the set the first `per_row` chains that are not marked wrong, longer than
    `max_tokens` (without prompt and end token), duplicates, or of an error class in `drop`
    (`classify` names those of a text). Where more than `config.rows` are left, so many are drawn
    with `rng`, in their order. The bucket is `published`: lengths are taken as they come. UserError
    for a malformed row (which one), and where no row is left.
    """
    rows, seen, found = [], set(), _Found()
    for index, (where, values) in enumerate(_read(config), 1):
        own = []
        for node, chain in enumerate(_chains(values, where, config)):
            found.finished += 1
            if chain.digest in seen:
                continue
            seen.add(chain.digest)
            tokens = len(encode(chain.text))
            own.append((chain.mark, tokens))
            if tokens > max_tokens:
                found.too_long += 1
            elif classes := set(drop) & set(classify(chain.text) if drop else ()):
                found.classes.update(classes)
                found.of_classes += 1
            elif chain.mark != WRONG and len(rows) - found.before < per_row:
                rows.append(_row(f"{config.name}-{index}", chain, node=node, tokens=tokens))
        found.close(own, len(rows))
    if not rows:
        raise UserError(f"no SFT chain is left of {config.file or config.hub}: {found.emptied()}")
    if config.rows is not None and len(rows) > config.rows:
        rows = [rows[i] for i in sorted(rng.sample(range(len(rows)), config.rows))]
    return rows, found.stats(rows, max_tokens=max_tokens)


def published_problems(config: PublishedConfig) -> list[Problem]:
    """What the user last says in each row, without the set's instruction to every problem."""
    problems = []
    for index, (where, values) in enumerate(_read(config), 1):
        text = _chains(values, where, config)[0].prompt[-1]["content"]
        for instruction in INSTRUCTIONS:
            text = text.strip().removeprefix(instruction).removesuffix(instruction)
        problems.append(Problem(id=f"{config.name}-{index}", problem=text.strip(), answer=""))
    return problems


class _Found:
    """What the set holds before any choice, counted as it goes by."""

    def __init__(self) -> None:
        self.finished = self.too_long = self.of_classes = self.before = 0
        self.classes: Counter[str] = Counter()
        self.chains: list[list[tuple[str, int]]] = []  # of each row: marks and tokens

    def close(self, own: list[tuple[str, int]], rows: int) -> None:
        """The end of a row of the set: its distinct chains, and how many rows there are by now."""
        self.chains.append(own)
        self.before = rows

    def stats(self, rows: Sequence[Row], *, max_tokens: int) -> dict[str, Any]:
        """The figures by the names of `tree_stats`; a tree is a row of the set."""
        marks = [[mark for mark, _ in own] for own in self.chains]
        names = list(dict.fromkeys(mark for own in marks for mark in own))
        tokens = {
            name: [size for own in self.chains for mark, size in own if mark == name]
            for name in names
        }
        chosen = Counter(row["id"] for row in rows)
        per_tree = {"chains": list(map(len, marks))}
        per_tree |= {name: [own.count(name) for own in marks] for name in names}
        per_tree["rows"] = [*chosen.values(), *[0] * (len(marks) - len(chosen))]
        return {
            "trees": len(marks),
            "by_status": {BUCKET: len(marks)},
            "solved": sum(CORRECT in own for own in marks),
            "mixed": sum(CORRECT in own and WRONG in own for own in marks),
            "chains": sum(map(len, marks)),
            "by_verdict": {name: len(sizes) for name, sizes in tokens.items()},
            "duplicates_removed": self.finished - sum(map(len, marks)),
            "dropped_too_long": self.too_long,
            "dropped_error_classes": dict(sorted(self.classes.items())),
            "per_tree": {name: spread(counts) for name, counts in per_tree.items()},
            "tokens": {name: spread(sizes) for name, sizes in tokens.items()}
            | {"sft": spread([row["tokens"] for row in rows])},
            "bucket": BUCKET,
            "max_tokens": max_tokens,
            "rows": len(rows),
            "trees_used": len(chosen),
        }

    def emptied(self) -> str:
        """Why nothing is left, and what to do."""
        if not self.chains:
            return "it has no rows"
        distinct = sum(map(len, self.chains))
        if all(mark == WRONG for own in self.chains for mark, _ in own):
            return f"all {distinct} chains are marked wrong; set data.published.take=conversation"
        return (
            f"of {distinct} chains {self.too_long} are too long and {self.of_classes} of an error "
            "class; raise data.max_tokens, or drop fewer classes"
        )


def _row(id: str, chain: PublishedChain, *, node: int, tokens: int) -> Row:
    return {
        "id": id,
        "prompt": list(chain.prompt),
        "completion": [{"role": "assistant", "content": chain.text}],
        "node": node,
        "bucket": BUCKET,
        "tokens": tokens,
        "parts": [],
    }


def _chains(row: Mapping[str, Any], where: str, config: PublishedConfig) -> list[PublishedChain]:
    """The chains of a row: one, or with `correct_generations` one a generation."""
    if config.take == "conversation":
        messages = _conversation(row, where, config)
        text = messages[-1]["content"]
        return [PublishedChain(prompt=messages[:-1], text=text, mark=UNMARKED)]
    generations = row.get("generations")
    if not isinstance(generations, list) or not generations:
        raise UserError(
            f"{where}: no list `generations` (it has {_names(row)}): "
            "set data.published.take=conversation"
        )
    marks = next((row[name] for name in MARKS if row.get(name) is not None), None)
    if not isinstance(marks, list) or len(marks) != len(generations):
        raise UserError(
            f"{where}: expected `{MARKS[0]}` (or `{MARKS[1]}`) with a mark for each of its "
            f"{len(generations)} `generations`"
        )
    if any(row.get(name) is not None for name in COLUMNS):
        prompt = _conversation(row, where, config)[:-1]
    else:
        prompt = [{"role": "user", "content": _text(row.get("problem"), f"{where}: `problem`")}]
    for i, mark in enumerate(marks):
        if not isinstance(mark, bool):
            raise UserError(
                f"{where}: the mark of generations[{i}] is {mark!r:.40}: expected true or false"
            )
    texts = [_text(text, f"{where}: generations[{i}]") for i, text in enumerate(generations)]
    return [
        PublishedChain(prompt=prompt, text=_tagged(text, config), mark=CORRECT if mark else WRONG)
        for text, mark in zip(texts, marks, strict=True)
    ]


def _conversation(row: Mapping[str, Any], where: str, config: PublishedConfig) -> list[Message]:
    """The messages of a row: system or not, then user and assistant by turns, assistant last."""
    column = next((name for name in COLUMNS if row.get(name) is not None), None)
    if column is None or not isinstance(row[column], list):
        raise UserError(f"{where}: no list `{COLUMNS[0]}` or `{COLUMNS[1]}`: it has {_names(row)}")
    turns = [_message(turn, f"{where}: {column}[{i}]") for i, turn in enumerate(row[column])]
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.insert(0, {"role": "system", "content": whole(system, f"{where}: `system`")})
    start = int(bool(turns) and turns[0]["role"] == "system")
    for i, turn in enumerate(turns[start:]):
        expected = ("user", "assistant")[i % 2]
        if turn["role"] != expected:
            raise UserError(
                f"{where}: turn {i + 1} of `{column}` is by the {turn['role']}: expected the "
                f"{expected}, by turns"
            )
    if len(turns) == start or turns[-1]["role"] != "assistant":
        raise UserError(f"{where}: `{column}` does not end with an assistant's turn")
    kept = turns if config.system else turns[start:]
    return [{**turn, "content": _tagged(turn["content"], config)} for turn in kept]


def _message(turn: Any, where: str) -> Message:
    if not isinstance(turn, Mapping):
        raise UserError(f"{where}: expected `from` and `value`, or `role` and `content`")
    named = _first(turn, "from", "role")
    role = ROLES.get(str(named).lower())
    if role is None:
        raise UserError(f"{where}: `from` (or `role`) is {named!r}: expected {', '.join(ROLES)}")
    content = _first(turn, "value", "content")
    return {"role": role, "content": _text(content, f"{where}: `value` (or `content`)")}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} is no text that says something")
    return whole(value, where)


def _first(turn: Mapping[str, Any], *names: str) -> Any:
    """The first of the columns that is there and not null."""
    return next((turn[name] for name in names if turn.get(name) is not None), None)


def _tagged(text: str, config: PublishedConfig) -> str:
    if config.thoughts == "as_published":
        return text
    for word, tag in THINK_TAGS.items():
        text = text.replace(word, tag)
    return text.strip()


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in row) or "no columns"


def _read(config: PublishedConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of the set, each with where it stands."""
    if config.file is None:
        yield from _read_hub(config)
        return
    path = Path(config.file)
    files = sorted(path.glob("*.*")) if path.is_dir() else [path]
    readers = [(file, READERS.get(file.suffix)) for file in files]
    if not path.is_dir() and readers[0][1] is None:
        raise UserError(f"{path}: expected a folder, or one of {', '.join(READERS)}")
    if not any(reader for _, reader in readers):
        raise UserError(f"{path} holds no file in one of the forms {', '.join(READERS)}")
    for file, reader in readers:
        for number, row in reader(file) if reader else ():
            if not isinstance(row, Mapping):
                raise UserError(f"{file}, row {number}: not a JSON object")
            yield f"{file}, row {number}", row


def _read_hub(config: PublishedConfig) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import datasets

    try:
        data: Any = datasets.load_dataset(config.hub, config.subset, split=config.split)
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(
            f"cannot load {config.hub} ({type(error).__name__}): give a local file with "
            f"data.published.file=FILE, or {config.name.upper()}=FILE in the environment"
        ) from error
    for number, row in enumerate(data, 1):
        yield f"{config.hub}, row {number}", row


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        number = 0
        for batch in ParquetFile(path).iter_batches(batch_size=256):  # sets have gigabytes
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def _read_json(path: Path) -> Iterable[tuple[int, Any]]:
    """A list of rows, as Sky-T1 is published, or one row a line under the same ending."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.lstrip().startswith("["):
            return read_rows(path)
        return list(enumerate(json.loads(text), 1))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON in UTF-8 ({error})") from error


READERS: dict[str, Callable[[Path], Iterable[tuple[int, Any]]]] = {
    ".json": _read_json,
    ".jsonl": read_rows,
    ".gz": read_rows,
    ".parquet": _read_parquet,
}
