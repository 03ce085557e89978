"""The reference of config groups, made from the comments of their files.

python -m marco.config_reference   # writes docs/config.md
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path

import yaml

from marco.config import ROOT

PAGE = ROOT / "docs" / "config.md"
COMMAND = "python -m marco.config_reference"
MAIN = "train"  # the config that lists the groups
LONGEST_VALUE = 60  # characters
INTRO = f"""# Reference of configs

Made from the comments in `conf/` by `{COMMAND}`: change those, not this page.

A group is chosen as `group=option`, a key is set as `key=value`, and swept with `-m` and
`key=value,value`; all three scripts take all of them.
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A key of a config file: its value as it is written there, and what its comments say of it."""

    key: str
    value: str
    comment: str


@dataclass(frozen=True)
class ConfigFile:
    """A config file: what it says of itself, of each key, and of each of its defaults."""

    text: str

    @cached_property
    def comments(self) -> dict[int, tuple[int, str]]:
        """The comment of each line that has one: the column of its `#`, and what follows it."""
        scalars = [
            range(token.start_mark.index, token.end_mark.index)
            for token in yaml.scan(self.text)
            if isinstance(token, yaml.ScalarToken)
        ]
        found, start = {}, 0
        for number, line in enumerate(self.text.splitlines(keepends=True)):
            for match in re.finditer(r"(?:^|(?<=\s))#", line):
                if not any(start + match.start() in scalar for scalar in scalars):
                    found[number] = (match.start(), line[match.start() + 1 :].rstrip())
                    break
            start += len(line)
        return found

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def _is_comment(self, number: int) -> bool:
        return number in self.comments and self.lines[number].lstrip().startswith("#")

    @cached_property
    def header(self) -> list[str]:
        """The comment lines on top."""
        found = []
        while self._is_comment(len(found)):
            found.append(self.comments[len(found)][1])
        return found

    @property
    def is_global(self) -> bool:
        """Whether its keys are those of the whole config, not of its group."""
        return self.header[:1] == [" @package _global_"]

    @cached_property
    def root(self) -> yaml.MappingNode:
        node = yaml.compose(self.text)
        assert isinstance(node, yaml.MappingNode)
        return node

    @property
    def defaults(self) -> list[tuple[str, str]]:
        """Each line of its defaults list, and what its comment says."""
        for key, value in self.root.value:
            if key.value == "defaults":
                return [(_choice(item), self._told(item)) for item in value.value]
        return []

    @property
    def entries(self) -> list[Entry]:
        """Its keys in their order, dotted; of a mapping's own comment a line without a value."""
        return list(self._walk(self.root, ""))

    def _walk(self, mapping: yaml.MappingNode, prefix: str) -> Iterator[Entry]:
        for key, value in mapping.value:
            name = prefix + key.value
            if name == "defaults" or (name == "hydra" and not self.is_global):
                continue
            comment = self._told(key)
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                if comment:
                    yield Entry(key=name, value="", comment=comment)
                yield from self._walk(value, f"{name}.")
            else:
                yield Entry(key=name, value=self._source(value), comment=comment)

    def _source(self, node: yaml.Node) -> str:
        """A value as it is written; a list of lines by its first ones."""
        if isinstance(node, yaml.SequenceNode) and not node.flow_style:
            items = [self._source(item) for item in node.value]
            shown = "; ".join(items)
            if len(shown) > LONGEST_VALUE:
                shown = f"{'; '.join(items[:3])}; … ({len(items)})"
            return f"[{shown}]"
        return " ".join(self.text[node.start_mark.index : node.end_mark.index].split())

    def _told(self, node: yaml.Node) -> str:
        """The comment above a key, that of its line, and the lines that go on below the latter."""
        line, column = node.start_mark.line, node.start_mark.column
        above: list[str] = []
        number = line - 1
        while number >= len(self.header) and self._is_comment(number):
            if self.comments[number][0] != column:
                break
            above.insert(0, self.comments[number][1])
            number -= 1
        beside: list[str] = []
        if line in self.comments:
            beside.append(self.comments[line][1])
            place, number = self.comments[line][0], line + 1
            while self._is_comment(number) and self.comments[number][0] == place:
                beside.append(self.comments[number][1])
                number += 1
        return _joined([*above, *beside])


def _choice(item: yaml.Node) -> str:
    """A line of a defaults list, without its comment."""
    if isinstance(item, yaml.MappingNode):
        [(group, option)] = item.value
        return f"{group.value}: {option.value}"
    return str(item.value)


def _joined(lines: Sequence[str]) -> str:
    """Comment lines as one; those that are indented, as a list is, stay lines of their own."""
    text = ""
    for line in lines:
        text += ("<br>" if line.startswith("   ") else " ") + " ".join(_plain(line).split())
    return text.removeprefix("<br>").strip()


def _plain(text: str) -> str:
    """Text that Markdown shows as it is in a table."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


@dataclass(frozen=True, kw_only=True)
class Group:
    """A folder of `conf/`, and where the main config puts it: what for, and which option."""

    name: str
    places: dict[str, tuple[str, str]]  # package: (what the main config chooses, its comment)
    options: dict[str, ConfigFile]


def groups(conf: Path) -> list[Group]:
    """The groups in the order of the main config's defaults."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for source, comment in ConfigFile((conf / f"{MAIN}.yaml").read_text("utf-8")).defaults:
        name, _, option = source.removeprefix("optional ").partition(": ")
        name, _, package = name.partition("@")
        if option:
            found.setdefault(name, {})[package or name] = option, comment
    return [
        Group(
            name=name,
            places=places,
            options={
                file.stem: ConfigFile(file.read_text("utf-8"))
                for file in sorted((conf / name).glob("*.yaml"))
            },
        )
        for name, places in found.items()
    ]


def reference(conf: Path) -> str:
    """The page: all groups in a table, the keys of no group, then every option with its keys."""
    found = groups(conf)
    lines = [INTRO, "| group | default | options | what it chooses |", "|---|---|---|---|"]
    for group in found:
        for package, (option, comment) in group.places.items():
            name = group.name if package == group.name else f"{group.name}@{package}"
            choices = [option for option in group.options if not option.startswith("_")]
            options = ", ".join(f"`{option}`" for option in choices)
            anchor = group.name.replace("/", "")
            lines.append(f"| [`{name}`](#{anchor}) | `{option}` | {options} | {comment} |")
    main = ConfigFile((conf / f"{MAIN}.yaml").read_text("utf-8"))
    lines += ["", "## Keys of no group", "", *_table(main.entries)]
    for group in found:
        lines += ["", f"## {group.name}"]
        if packages := [p for p in group.places if p != _prefix(group)]:
            also = " and ".join(f"`{package}`" for package in packages)
            lines += ["", f"The same keys stand below {also}."]
        for name, file in group.options.items():
            lines += _option(group, name, file)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _prefix(group: Group) -> str:
    return group.name if group.name in group.places else next(iter(group.places))


def _option(group: Group, name: str, file: ConfigFile) -> list[str]:
    heading = f"{group.name}/{name}" if name.startswith("_") else f"{group.name}={name}"
    lines = ["", f"### {heading}", "", *_paragraphs(file.header)]
    if defaults := [f"`{source}`" for source, _ in file.defaults]:
        lines += ["", f"On top of: {', '.join(defaults)}."]
    prefix = "" if file.is_global else f"{_prefix(group)}."
    entries = [replace(entry, key=prefix + entry.key) for entry in file.entries]
    return [*lines, "", *_table(entries)] if entries else lines


def _paragraphs(header: Sequence[str]) -> Iterator[str]:
    """A file's header as Markdown; its indented lines are commands."""
    told = [line for line in header if not line.startswith(" @package")]
    for is_command, lines in groupby(told, key=lambda line: line.startswith("   ")):
        if is_command:
            yield from ("", "```bash", *(line.strip() for line in lines), "```", "")
        else:
            yield " ".join(_plain(line.strip()) for line in lines)


def _table(entries: Sequence[Entry]) -> list[str]:
    rows = ["| key | default | what it means |", "|---|---|---|"]
    for entry in entries:
        value = entry.value.replace("|", "\\|")
        rows.append(f"| `{entry.key}` | {f'`{value}`' if value else ''} | {entry.comment} |")
    return rows


if __name__ == "__main__":
    argparse.ArgumentParser(prog=COMMAND, description=f"Write {PAGE.name} anew.").parse_args()
    PAGE.write_text(reference(ROOT / "conf"), encoding="utf-8")
    print(PAGE)
