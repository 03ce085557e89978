"""Every command that the documentation names is a real one, and every file is there."""

import importlib.util
import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from marco.cards.__main__ import main as cards
from marco.config import ROOT
from marco.errors import UserError
from marco.reporting.__main__ import main as reporting
from marco.viewer.__main__ import main as viewer

from ..test_config import checked
from ..test_tables import swept
from .pages import PLACEHOLDER, Page, apply_diff, commands, pages, read_page

SCRIPTS = ("generate.py", "train.py", "evaluate.py")
# Programs that are not ours: what they take is theirs to say.
OTHERS = {"pip", "uv", "git", "cd", ".", "for", "do", "done", "vllm", "ray", "wandb", "torchrun"}
OTHERS |= {"mlflow", "tensorboard", "sbatch", "srun", "salloc", "export", "python3.11", "ls"}
MODULES = {"pytest", "venv", "vllm.entrypoints.openai.api_server"}
FILE = re.compile(r"(?:conf|marco|experiments|docs|tests|benchmarks|requirements)/[\w./-]+")
PAGES = {page.name: page for page in pages()}
# What stands among files that a page writes is run with them (test_examples.py).
EXAMPLES = {(b.page, b.section) for page in PAGES.values() for b in page.blocks if b.title}
COMMANDS = [
    (f"{block}: {' '.join(words)}", words)
    for page in PAGES.values()
    for block, words in commands(page)
    if (block.page, block.section) not in EXAMPLES
]


def jobs(overrides: list[str]) -> list[list[str]]:
    """The overrides of a sweep's jobs: each value of each key at least once."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [o.input_line]
        for o in parsed
    ]
    count = max(map(len, choices), default=1)
    return [[values[min(i, len(values) - 1)] for values in choices] for i in range(count)]


def compose(script: str, arguments: list[str]) -> None:
    flags = {"-m", "--multirun"} & set(arguments)
    overrides = []
    for override in (a for a in arguments if a not in flags):
        name, _, value = override.partition("=")
        if name == "student" and (PLACEHOLDER in value or "/" in value):
            overrides += ["student=folder", f"student.model={value}"]
        else:
            overrides.append(override)
    given = {override.partition("=")[0]: override.partition("=")[2] for override in overrides}
    if name := given.get("experiments"):
        own = swept(name, given.get("size", "embedded"))
        overrides += [f"{key}={','.join(own[key])}" for key in own if key not in given]
    found = jobs(overrides)
    assert len(found) == 1 or flags or name, "a sweep without -m"
    for job in found:
        checked(*job, name=Path(script).stem)


def parses(main, arguments: list[str]) -> None:
    """A command line is understood; whether the folders are there is another matter."""
    try:
        main(arguments)
    except SystemExit as error:
        assert error.code == 0, f"not understood: {arguments}"


def check(words: list[str]) -> None:
    program, *rest = words
    if program == "make":
        rules = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in rest if "=" not in word} <= set(rules)
    elif program == "python" and rest[0] == "-m":
        module, arguments = rest[1], rest[2:]
        if module == "marco.reporting":
            parses(reporting, arguments)
        elif module == "marco.viewer":
            parses(viewer, [*arguments, "--port", "0"])
        elif module == "marco.cards":
            parses(cards, arguments)
        else:
            assert module in MODULES or module.startswith("marco."), f"unknown module {module}"
            assert module in MODULES or importlib.util.find_spec(module), f"no module {module}"
    elif program == "python" and rest[0] in SCRIPTS:
        compose(rest[0], rest[1:])
    elif program == "python":
        assert rest[0] in ("-c", "-") or (ROOT / rest[0]).is_file(), f"no file {rest[0]}"
    else:
        assert program in OTHERS, f"unknown program {program}: teach this test what it is"


# Those of the reference stand in the configs, each of which is composed in tests/test_config.py and
# tests/test_tables.py: here in `make docs-test` alone.
IN_CONFIGS = "docs/config.md"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, marks=[pytest.mark.slow] if name.startswith(IN_CONFIGS) else [])
        for name, words in COMMANDS
    ],
    ids=[name for name, _ in COMMANDS],
)
def test_every_command_is_understood(words: list[str], monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where nothing is: no command finds anything to do
    monkeypatch.delenv("HF_TOKEN", raising=False)
    check(words)


@pytest.mark.parametrize("name", PAGES)
def test_every_named_file_and_link_is_there(name: str):
    page = PAGES[name]
    made = {block.title for block in page.blocks if block.title}
    named = [code for code in page.codes if FILE.fullmatch(code)]
    missing = [code for code in named if code not in made and not (ROOT / code).exists()]
    for link in page.links:
        target = link.split("#")[0]
        if "://" not in link and target and not ((ROOT / name).parent / target).exists():
            missing.append(link)
    assert not missing


def test_the_readme_leads_to_the_pages():
    for target in ("docs/tutorial.md", "docs/adding.md", "docs/config.md"):
        assert target in PAGES["README.md"].links


def test_the_readmes_loss_is_the_examples():
    (shown,) = (block for block in PAGES["README.md"].blocks if block.language == "python")
    texts = [block.text for block in PAGES["docs/adding.md"].blocks if block.language == "python"]
    assert shown.text in texts


def page_of(tmp_path, text: str) -> Page:
    written = tmp_path / "page.md"
    written.write_text(text)
    return read_page(written, name="page.md")


@pytest.mark.parametrize(
    ("line", "error", "told"),
    [
        ("python train.py recipe=nonesuch", Exception, "nonesuch"),
        ("python train.py search.max_rolouts=3", Exception, "max_rolouts"),
        ("python train.py recipe=sft loss.alpha=-1", UserError, "alpha"),
        ("python train.py recipe=sft,dpo", AssertionError, "without -m"),
        ("python -m marco.reporting --rowz a outputs", AssertionError, "not understood"),
        ("python -m marco.cards", AssertionError, "not understood"),
        ("python -m marco.nonesuch", AssertionError, "no module"),
        ("python nonesuch.py", AssertionError, "no file"),
        ("make nonesuch", AssertionError, "nonesuch"),
        ("python train.py experiments=nonesuch", FileNotFoundError, "nonesuch"),
        ("frobnicate", AssertionError, "unknown program"),
    ],
)
def test_a_command_that_does_not_exist_is_found_out(line, error, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = page_of(tmp_path, f"```bash\n{line}\n```\n")
    [(_, words)] = commands(page)
    with pytest.raises(error, match=told):
        check(words)


def test_commands_are_read_as_a_shell_reads_them(tmp_path):
    page = page_of(
        tmp_path,
        '```bash\nSMALL="task.train=6 task.test=6"\nWANDB_MODE=offline python train.py $SMALL \\\n'
        "    student=<folder or name>  # a comment\n"
        "cd x && python a.py 'b={c: 1}' $(ls *) $(ls | head -n 2)\n```\n"
        "```python\nnot a command\n```\n",
    )
    assert [words for _, words in commands(page)] == [
        ["python", "train.py", "task.train=6", "task.test=6", f"student={PLACEHOLDER}"],
        ["cd", "x"],
        ["python", "a.py", "b={c: 1}", *[PLACEHOLDER] * 3],
    ]


def test_a_diff_changes_its_lines_and_no_others():
    text = "a\nb\nc\nd\n"
    assert apply_diff(text, " a\n+x\n@@\n-c\n d\n") == "a\nx\nb\nd\n"
    with pytest.raises(ValueError, match="stand there 0 times"):
        apply_diff(text, " a\n+x\n c\n")
