"""The page in a real browser: list, open, keyboard, annotate, reload, and a killed server."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from marco.search.tree import Node, Tree, write_trees
from marco.viewer.export import tree_page
from marco.viewer.index import distinct_chains

from .browser import Server, browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chrome() -> Iterator:
    with browser() as chrome:
        yield chrome


@pytest.fixture
def server(folder: Path, trees: list[Tree]) -> Iterator[Server]:
    server = Server(folder)
    yield server
    server.kill()


class Errors(list):
    """What a page logs as errors, raises, or tries to load from elsewhere."""

    def __init__(self, page) -> None:
        super().__init__()
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.append(said.text))
        page.on("dialog", lambda dialog: (self.append("dialog"), dialog.dismiss()))
        page.on("request", lambda asked: self._asked(asked.url))

    def _asked(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "file:", "data:")):
            self.append(url)


@pytest.fixture
def page(chrome, server: Server) -> Iterator:
    context = chrome.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.errors = Errors(page)
    page.goto(f"{server.url}#token={server.token}")
    page.wait_for_selector("tbody tr")
    yield page
    assert page.errors == []
    context.close()


def until(page, condition: str, arg=None) -> None:
    """Wait for a condition; Playwright's own way needs `eval`, which the page's policy forbids."""
    deadline = time.monotonic() + 30
    while not page.evaluate(condition, arg):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def saved(page) -> None:
    until(page, "document.querySelector('.saved').textContent === 'saved'")


def test_list_filter_sort_and_open_by_keyboard(page, trees: list[Tree]) -> None:
    assert page.locator("tbody tr").count() == len(trees)
    assert "token" not in page.url
    page.select_option("select[name=verdict]", "correct")
    holding = [t.id for t in trees if any(n.verdict == "correct" for n in t.nodes)]
    until(page, f"document.querySelectorAll('tbody tr').length === {len(holding)}")
    page.get_by_role("button", name="nodes", exact=True).click()
    page.wait_for_selector("th[aria-sort=descending]")
    counts = [int(text) for text in page.locator("tbody td:nth-child(6)").all_inner_texts()]
    assert counts == sorted(counts, reverse=True)
    first = page.locator("tbody .id").first.inner_text()
    page.keyboard.press("Enter")  # the first row has the focus
    page.wait_for_selector(".node")
    assert page.locator("h2").inner_text() == first
    tree = next(tree for tree in trees if tree.id == first)
    assert page.locator(".node").count() == len(tree.nodes)
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_selector("tbody tr")
    page.keyboard.press("/")
    page.keyboard.type("p3")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('tbody tr').length === 1")


def test_a_tree_is_walked_folded_and_zoomed(page, trees: list[Tree]) -> None:
    longest = max((trees[0].path(leaf.id) for _, leaf, _ in distinct_chains(trees[0])), key=len)
    parent = longest[0]
    page.goto(page.url.split("#")[0] + f"#/tree/0?node={parent.id}")
    page.wait_for_selector(f".node.is-selected[data-node='{parent.id}']")
    page.keyboard.press("ArrowRight")
    child = next(node for node in trees[0].nodes if node.parent == parent.id)  # the first
    page.wait_for_selector(f".node.is-selected[data-node='{child.id}']")
    shown = page.locator(".thought pre").all_inner_texts()
    assert [text.strip() for text in shown] == [n.text.strip() for n in trees[0].path(child.id)]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    until(page, f"document.querySelectorAll('.node').length < {len(trees[0].nodes)}")
    page.keyboard.press("Space")
    until(page, f"document.querySelectorAll('.node').length === {len(trees[0].nodes)}")
    before = page.locator(".drawing > .layer").get_attribute("style")
    page.keyboard.press("+")
    assert page.locator(".drawing > .layer").get_attribute("style") != before
    page.keyboard.press("n")
    leaf = page.locator(".node.is-selected").get_attribute("data-node")
    assert int(leaf) in {leaf.id for _, leaf, _ in distinct_chains(trees[0])}
    page.wait_for_selector(".why")


def test_replay_goes_from_nothing_to_the_whole_tree(page, trees: list[Tree]) -> None:
    page.goto(page.url.split("#")[0] + "#/tree/0")
    page.wait_for_selector(".node")
    page.keyboard.press("r")
    page.wait_for_selector(".replay input")
    assert page.locator(".node").count() == 1
    page.keyboard.press(".")
    page.keyboard.press(".")
    assert "wave 1, step 2" in page.locator(".told").inner_text()
    page.keyboard.press(">")
    slider = page.locator(".replay input")
    slider.fill(slider.get_attribute("max"))
    assert page.locator(".node").count() == len(trees[0].nodes)
    root = trees[0].nodes[0]
    facts = page.locator(".node[data-node='0'] .small").text_content()
    assert facts == f"v {root.value / root.visits:.2f}  N {root.visits}"
    page.keyboard.press("Escape")
    assert page.locator(".replay").count() == 0


def test_annotate_undo_edit_reload_and_export(page, server: Server, trees: list[Tree]) -> None:
    chains = [(t.id, leaf.id) for t in trees for _, leaf, _ in distinct_chains(t)]
    page.goto(server.url + "#/annotate?todo=true")
    page.wait_for_selector(".thought")
    for key in "cxd":
        before = page.locator("h2").inner_text()
        page.keyboard.press(key)
        until(page, "before => document.querySelector('h2').innerText !== before", arg=before)
    page.keyboard.press("u")
    last = f"{chains[2][0]}, chain {chains[2][1]}"
    until(page, "last => document.querySelector('h2').innerText === last", last)
    assert page.locator(".label[aria-pressed=true]").count() == 0
    page.keyboard.press("e")
    page.locator("textarea").fill("<answer>\n1\n</answer>\n")
    page.keyboard.press("Control+Enter")
    until(page, "document.querySelector('.progress').textContent.startsWith('3 of')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".edited")
    page.reload()
    page.wait_for_selector(".label.is-correct[aria-pressed=true]")
    assert page.locator(".edited pre").inner_text() == "<answer>\n1\n</answer>\n"
    with page.expect_download() as download:
        page.get_by_role("link", name="export").click()
    lines = [json.loads(line) for line in download.value.path().read_text("utf-8").splitlines()]
    assert [(li["tree"], li["node"], li["label"]) for li in lines] == [
        (*chains[0], "correct"), (*chains[1], "wrong"), (*chains[2], "correct"),
    ]  # fmt: skip
    assert lines[2]["text"] == "<answer>\n1\n</answer>\n"


def test_a_killed_server_loses_nothing_and_the_page_goes_on(page, server: Server) -> None:
    page.goto(server.url + "#/tree/0")
    page.wait_for_selector(".annotation")
    server.kill()
    page.keyboard.press("x")
    page.wait_for_selector(".saved.is-bad")
    page.wait_for_selector(".label.is-wrong[aria-pressed=true]")
    server.start()
    saved(page)
    page.reload()
    page.wait_for_selector(".label.is-wrong[aria-pressed=true]")
    page.errors[:] = [e for e in page.errors if "net::ERR_" not in e]  # refused, or cut off


def test_two_tabs_see_what_the_other_did(page, server: Server) -> None:
    page.goto(server.url + "#/tree/0")
    page.wait_for_selector(".annotation")
    other = page.context.new_page()
    other.goto(server.url + "#/tree/0")
    other.wait_for_selector(".annotation")
    other.keyboard.press("c")
    saved(other)
    page.keyboard.press("d")
    page.wait_for_selector(".saved.is-bad")
    assert "changed in another tab" in page.locator(".saved").inner_text()
    page.wait_for_selector(".label.is-correct[aria-pressed=true]")
    page.keyboard.press("d")
    saved(page)
    page.errors[:] = [e for e in page.errors if "409" not in e]


def test_without_the_token_the_page_reads_but_does_not_write(chrome, server: Server) -> None:
    page = chrome.new_context().new_page()
    page.goto(server.url + "#/tree/0")
    page.wait_for_selector(".annotation")
    page.keyboard.press("c")
    page.wait_for_selector(".saved.is-bad")
    assert "open the whole address" in page.locator(".saved").inner_text()
    page.context.close()


# Hostile text -----------------------------------------------------------------------------------

ATTACKS = [
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    '"><svg onload=window.ran=1><a xlink:href="javascript:window.ran=1">x</a></svg>',
    "[x](javascript:window.ran=1) <a href='javascript:window.ran=1'>x</a>",
    "</pre></textarea></title></script><script>window.ran=1</script><!--",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    r"$\href{javascript:window.ran=1}{x}$ $\htmlData{onclick=window.ran=1}{x}$",
    r"$\includegraphics{http://evil.test/x.png}$ $\url{javascript:window.ran=1}$",
    r"$\def\a{\a\a}\a$ $$\frac{1}{$$ \[ \( $\unknown{$ \begin{matrix} $\rule{99999em}{99999em}$",
    r"$\style{background:url(http://evil.test/)}{x}$ $\class{a}{\html@mathml}$",
    "javascript:window.ran=1 {{constructor.constructor('window.ran=1')()}} ${window.ran=1}",
    "\u202e\u0000\u2028 \ud7ff <style>*{display:none}</style>",
]


def hostile(text: str) -> Tree:
    nodes = [
        Node(id=0, parent=None, kind="prompt", model=text, text=text),
        Node(id=1, parent=0, kind=text, model=text, text=text, visits=1, finish=text),
        Node(id=2, parent=1, kind="answer", model=text, text=text, verdict="wrong", answer=text),
        Node(id=3, parent=1, kind="answer", model=text, text=text + "1", verdict=text, answer=text),
    ]
    return Tree(
        id=text, task=text, problem=text, gold=text, pattern=text, models={text: text},
        seed=0, status=text, usage={text: 1}, nodes=nodes,
    )  # fmt: skip


def clean(page) -> None:
    assert page.evaluate("window.ran") is None
    for selector in ("img", "iframe", "object", "svg a", "[onload]", "[onerror]", "[onclick]"):
        assert page.locator(f"#app {selector}").count() == 0
    for href in page.locator("a").evaluate_all("links => links.map(link => link.href)"):
        assert re.match(r"http://127\.0\.0\.1:|file:", href), href
    assert page.locator("#app script, #app style, #app link").count() == 0


def test_nothing_in_a_tree_runs(chrome, folder: Path) -> None:
    folder.mkdir(parents=True)
    write_trees(folder / "trees.jsonl", [hostile(text) for text in ATTACKS])
    server = Server(folder)
    page = chrome.new_context().new_page()
    errors = Errors(page)
    page.goto(f"{server.url}#token={server.token}")
    page.wait_for_selector("tbody tr")
    clean(page)
    for n, text in enumerate(ATTACKS):
        page.goto(f"{server.url}#/tree/{n}?node=2")
        until(
            page,
            "n => location.hash.startsWith(`#/tree/${n}`) && document.querySelector('.thought')",
            arg=n,
        )
        until(page, "text => document.querySelector('h2').textContent === text", arg=text)
        clean(page)
        page.keyboard.press("m")  # as plain text, to the letter
        assert page.locator(".problem pre").first.text_content() == text
        page.keyboard.press("e")
        page.locator("textarea").fill(text)
        page.keyboard.press("Control+Enter")
        page.wait_for_selector(".edited")
        clean(page)
    page.goto(f"{server.url}#/annotate")
    page.wait_for_selector(".thought")
    clean(page)
    assert errors == []
    page.context.close()
    server.kill()


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_in_an_exported_file_runs(chrome, tmp_path: Path, text: str) -> None:
    path = tmp_path / "tree.html"
    path.write_text(tree_page(hostile(text)), "utf-8")
    page = chrome.new_context().new_page()
    errors = Errors(page)
    page.goto(path.as_uri())
    page.wait_for_selector(".node")
    assert page.locator(".node").count() == 4
    clean(page)
    assert errors == []
    page.context.close()


def test_mathematics_is_rendered_from_the_package(chrome, tmp_path: Path) -> None:
    tree = hostile("so")
    tree.nodes[2].text = r"It costs $5 and $6. $\frac{1}{2}$ \[ x^2 \] $\broken{$"
    path = tmp_path / "tree.html"
    path.write_text(tree_page(tree), "utf-8")
    page = chrome.new_context().new_page()
    page.goto(path.as_uri())
    page.locator(".node[data-node='2']").click()
    page.wait_for_selector(".katex")
    assert page.locator(".thought .katex").count() == 2
    assert page.evaluate(
        "document.fonts.ready.then(() => [...document.fonts].some(f => f.status === 'loaded'))"
    )
    assert "It costs $5 and $6." in page.locator(".thought").last.inner_text()
    page.context.close()
