"""The pages of the documentation: their blocks of code, commands, links and named files.

A block's first line may say more than its language: ```yaml title="conf/x.yaml" is that file,
```python title="marco/x.py" append stands at that file's end, ```diff title="marco/x.py" changes
it, and ```bash run is run when the examples of a page are tried.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt

from marco.config import ROOT

PLACEHOLDER = "placeholder"
OPERATORS = {"&&", "||", ";", "|", "&", ";;"}


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: where it stands, what its first line says, and what is in it."""

    page: str
    line: int
    section: str
    language: str
    title: str | None
    marks: frozenset[str]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Page:
    name: str
    blocks: list[Block] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)  # what stands between backticks in its text


def read_page(path: Path, *, name: str) -> Page:
    page = Page(name=name)
    section = ""
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text("utf-8"))
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            section = tokens[i + 1].content
        if token.type == "fence":
            language, *words = shlex.split(token.info) or [""]
            titles = [w.removeprefix("title=") for w in words if w.startswith("title=")]
            assert token.map is not None
            page.blocks.append(
                Block(
                    page=page.name,
                    line=token.map[0] + 1,
                    section=section,
                    language=language,
                    title=titles[0] if titles else None,
                    marks=frozenset(w for w in words if not w.startswith("title=")),
                    text=token.content,
                )
            )
        for child in token.children or []:
            if child.type == "link_open":
                page.links.append(str(child.attrs["href"]))
            if child.type == "code_inline":
                page.codes.append(child.content)
    return page


def pages() -> list[Page]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [read_page(path, name=str(path.relative_to(ROOT))) for path in paths]


def commands(page: Page) -> Iterator[tuple[Block, list[str]]]:
    """The words of each simple command of the page's shell blocks, without what assigns to it.

    What stands for something else (`<folder>`, `$(...)`) is one word, or as many as `head` leaves;
    variables that the page sets are put in.
    """
    variables: dict[str, str] = {}
    for block in page.blocks:
        if block.language != "bash":
            continue
        text = re.sub(r"<[\w .:/-]+>|\$\([^()]*\)|\$\(\([^()]*\)\)", _stand_in, block.text)
        for line in text.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(
                Template(line).safe_substitute(variables), posix=True, punctuation_chars="|&;"
            )
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word not in OPERATORS:
                    words.append(word)
                    continue
                while words and (assigned := re.fullmatch(r"(\w+)=(.*)", words[0])):
                    if len(words) == 1:
                        variables[assigned[1]] = assigned[2]
                    words.pop(0)
                if words:
                    yield block, words
                words = []


def _stand_in(found: re.Match[str]) -> str:
    count = re.search(r"head -n (\d+)", found[0])
    return " ".join([PLACEHOLDER] * int(count[1] if count else 1))


def apply_diff(text: str, diff: str) -> str:
    """The text with each hunk's lines in place of the ones that it is about; hunks end at `@@`."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        if text.count(before) != 1:
            raise ValueError(f"these lines stand there {text.count(before)} times:\n{before}")
        text = text.replace(before, after)
    return text


def write_block(block: Block, project: Path) -> None:
    """Put a block with a title into a copy of the project."""
    assert block.title is not None
    path = project / block.title
    if block.language == "diff":
        path.write_text(apply_diff(path.read_text("utf-8"), block.text), "utf-8")
    elif "append" in block.marks:
        path.write_text(f"{path.read_text('utf-8')}\n\n{block.text}", "utf-8")
    else:
        assert not path.exists(), f"{block}: {block.title} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")
