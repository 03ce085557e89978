"""How fast the viewer opens many trees, and draws a large one.

python benchmarks/viewer.py --from outputs/trees/NAME --trees 100000

The trees are copies of `--from` (a folder of real trees) under other ids. `index_trees_per_s` is
how fast the index of `--from` is made; for that of the copies the error classes of equal chains are
remembered, which are most of the work. `open_s` is the time from the start of the command to the
first page of the list, with the index there, imports included; `page_ms` the median of pages
of the list in several orders and filters. In a real Chromium, where there is one: `list_ms` from
the address to the rows in the page, `draw_ms` from opening a tree of `--nodes` nodes to its being
drawn, and `frame_ms` the median time between frames while it is dragged. The last line is one JSON
object.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measures import rounded

from marco.search.tree import Node, Tree, read_trees, trees_file, write_trees
from marco.viewer import index as viewer_index

QUERIES = (
    "sort=n&offset=50000",
    "sort=solved_share&descending=true",
    "sort=longest&descending=true&offset=30000",
    "verdict=mixed&kind=reflection&sort=nodes",
    "text=boxes+cards",
    "error_class=truncation&status=solved&sort=tokens",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")


def copies(source: Path, count: int) -> Iterator[str]:
    """So many trees, each with an id of its own."""
    lines = [json.loads(line) for line in trees_file(source).open(encoding="utf-8")]
    for i in range(count):
        record = lines[i % len(lines)]
        yield json.dumps(record | {"id": f"{record['id']}-{i}"}, ensure_ascii=False)


def large(tree: Tree, nodes: int) -> Tree:
    """A tree of so many nodes, four below each, with the texts of a real one."""
    made = [tree.nodes[0]]
    children: list[list[int]] = [[]]
    for i in range(1, nodes):
        children.append([])
        children[(i - 1) // 4].append(i)
    order: list[tuple[int, int | None]] = []
    stack: list[tuple[int, int | None]] = [(0, None)]
    while stack:
        old, parent = stack.pop()
        own = len(order)
        order.append((old, parent))
        stack += [(child, own) for child in reversed(children[old])]
    texts = tree.nodes[1:]
    for own, (old, parent) in enumerate(order[1:], 1):
        like = texts[own % len(texts)]
        is_leaf = not children[old]
        verdict = ("correct", "wrong", "no_answer")[own % 3] if is_leaf else None
        made.append(
            Node(
                id=own,
                parent=parent,
                kind=like.kind,
                model=like.model,
                text=f"{like.text}{own}\n",
                visits=1 + own % 9,
                value=float(own % 2),
                tokens=like.tokens,
                finish="stop",
                verdict=verdict,
                answer=str(own) if is_leaf else None,
            )  # fmt: skip
        )
    tree.id, tree.nodes = "large", made
    return tree


def remember_classes() -> None:
    """The error classes of equal chains are told once, in this process."""
    told: dict[str, list[str]] = {}
    classes = viewer_index.chain_classes

    def remembered(text: str, *rest: Any) -> list[str]:
        if text not in told:
            told[text] = classes(text, *rest)
        return told[text]

    viewer_index.chain_classes = remembered
    viewer_index.POOLED_BYTES = float("inf")


class Server:
    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "marco.viewer", str(folder), "--port", "0"]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = next(line for line in self.process.stdout if line.startswith("http://")).strip()
        self.get("trees")
        self.seconds = time.perf_counter() - self.started

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url.split('#')[0]}api/{path}") as answer:
            return json.loads(answer.read())

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


def pages(server: Server) -> float:
    """The median time of a page, in ms."""
    times = []
    for query in QUERIES * 3:
        started = time.perf_counter()
        server.get(f"trees?{query}")
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times)


DRAWN = """async ([hash, nodes]) => {
  const start = performance.now();
  location.hash = hash;
  const frame = () => new Promise(requestAnimationFrame);
  while (document.querySelectorAll(".node").length < nodes) await frame();
  await new Promise(requestAnimationFrame);
  return performance.now() - start;
}"""
FRAMES = """async () => {
  const times = [];
  let last = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 60; i++) {
    const now = await new Promise(requestAnimationFrame);
    times.push(now - last);
    last = now;
  }
  return times;
}"""


def in_chromium(server: Server, number: int, nodes: int) -> dict[str, float]:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto("about:blank")
        started = time.perf_counter()
        page.goto(server.url)
        page.wait_for_selector("tbody tr")
        list_ms = 1000 * (time.perf_counter() - started)
        draws = []
        for _ in range(5):
            draws.append(page.evaluate(DRAWN, [f"#/tree/{number}", nodes]))
            page.evaluate("location.hash = '#/trees'")
            page.wait_for_selector("tbody tr")
        page.evaluate(DRAWN, [f"#/tree/{number}", nodes])
        page.mouse.move(600, 500)
        page.mouse.down()
        page.evaluate(f"void (window.frames60 = ({FRAMES})())")
        for i in range(120):
            page.mouse.move(600 + 3 * (i % 60), 500 - 2 * i)
        frames = page.evaluate("window.frames60")
        browser.close()
    return {
        "list_ms": list_ms,
        "draw_ms": statistics.median(draws),
        "frame_ms": statistics.median(frames),
        "slowest_frame_ms": max(frames),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, required=True)
    parser.add_argument("--trees", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "trees"
        folder.mkdir()
        write_trees(folder / "trees.jsonl", copies(options.source, options.trees))
        with (folder / "trees.jsonl").open("a", encoding="utf-8") as file:
            tree = large(next(iter(read_trees(options.source))), options.nodes)
            file.write(tree.to_json() + "\n")
        size = (folder / "trees.jsonl").stat().st_size
        started = time.perf_counter()
        viewer_index.Index.open(options.source, path=Path(place) / "source.sqlite").close()
        seconds = time.perf_counter() - started
        remember_classes()
        viewer_index.Index.open(folder).close()
        again = Server(folder)
        figures = {
            "trees": options.trees,
            "trees_mb": size / 1e6,
            "index_trees_per_s": sum(1 for _ in read_trees(options.source)) / seconds,
            "open_s": again.seconds,
            "page_ms": pages(again),
        }
        if any(map(shutil.which, NAMES)):
            figures |= in_chromium(again, options.trees, options.nodes)
        again.end()
    print(json.dumps(rounded(figures)))


if __name__ == "__main__":
    main()
