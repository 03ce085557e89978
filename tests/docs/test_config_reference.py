"""The reference of configs tells every key with its comment, and is up to date."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from marco.config import ROOT
from marco.config_reference import COMMAND, PAGE, ConfigFile, groups, reference

CONF = ROOT / "conf"
FOLDERS = sorted(path for pattern in ("*/", "*/*/") for path in CONF.glob(pattern))
FILES = [
    str(p.relative_to(CONF).with_suffix("")) for f in FOLDERS for p in sorted(f.glob("*.yaml"))
]

SAMPLE = """\
# @package _global_
# What the file is.
#   python train.py recipe=x
defaults:
  - base
  - override /loss: dpo   # in place of cDPO
# Of the first key, in
# two lines.
first: "a # in a string"  # beside it
url: http://host/#part    # and a second line
                          # below it
# How it is held:
#   one   way
#   other way
held: one
outer:                    # of the mapping
  inner: 1                # less < than | that
  flow: {a: 1, b: [2]}
  # Of a list.
  list:
    - x
    - y z
"""


def test_a_file_by_hand():
    file = ConfigFile(SAMPLE)
    assert file.is_global
    assert file.header == [
        " @package _global_",
        " What the file is.",
        "   python train.py recipe=x",
    ]
    assert file.defaults == [("base", ""), ("override /loss: dpo", "in place of cDPO")]
    assert [(e.key, e.value, e.comment) for e in file.entries] == [
        ("first", '"a # in a string"', "Of the first key, in two lines. beside it"),
        ("url", "http://host/#part", "and a second line below it"),
        ("held", "one", "How it is held:<br>one way<br>other way"),
        ("outer", "", "of the mapping"),
        ("outer.inner", "1", "less &lt; than \\| that"),
        ("outer.flow", "{a: 1, b: [2]}", ""),
        ("outer.list", "[x; y z]", "Of a list."),
    ]


def test_long_lists_are_told_by_their_first_lines():
    lines = "".join(f"  - {'word' * 4} {i}\n" for i in range(9))
    [entry] = ConfigFile(f"key:\n{lines}").entries
    assert entry.value.endswith("wordwordwordword 2; … (9)]")


def keys(values: Any, prefix: str = "") -> Iterator[str]:
    """The keys of all that is no mapping, of an empty one too, dotted."""
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from keys(value, f"{prefix}.{name}" if prefix else str(name))
    else:
        yield prefix


@pytest.mark.parametrize("name", FILES)
def test_every_key_of_every_file_is_told(name: str):
    text = (CONF / f"{name}.yaml").read_text("utf-8")
    entries = ConfigFile(text).entries
    told = {entry.key: yaml.safe_load(entry.value) for entry in entries if entry.value}
    values = {k: v for k, v in yaml.safe_load(text).items() if k != "defaults"}
    for key in keys(values) if values else ():
        # A flow mapping is one value, and told as it is written.
        assert any(key == k or key.startswith(f"{k}.") for k in told), key


def test_every_group_that_is_there_is_in_the_main_config():
    assert {group.name for group in groups(CONF)} == {str(p.relative_to(CONF)) for p in FOLDERS}


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == reference(CONF), f"out of date: remake it by `{COMMAND}`"
