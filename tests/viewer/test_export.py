import json
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from marco.search.tree import Node, Tree
from marco.viewer import assets
from marco.viewer.__main__ import main
from marco.viewer.export import tree_page

FRONTEND = Path(__file__).resolve().parents[2] / "marco" / "viewer" / "frontend"


def tree(text: str = "so", **changes) -> Tree:
    nodes = [
        Node(id=0, parent=None, kind="prompt", model=None, text="2 + 2?"),
        Node(id=1, parent=0, kind="answer", model="m", text=text, verdict="correct", answer="4"),
    ]
    values = {"id": "t", "task": "arithmetic", "problem": "2 + 2?", "gold": "4", "pattern": "a"}
    values |= {"models": {}, "seed": 0, "status": "solved", "usage": {}}
    return Tree(**values | changes, nodes=nodes)


def data_in(page: str) -> dict:
    return json.loads(
        re.findall(r'<script type="application/json" id="tree">(.*?)</script>', page)[0]
    )


@settings(deadline=None)  # a busy machine is no error
@given(st.text(), st.text())
def test_any_text_is_data_and_comes_back(text: str, id: str) -> None:
    page = tree_page(tree(text, id=id))
    assert data_in(page)["nodes"][1]["text"] == text
    assert data_in(page)["id"] == id
    assert len(re.findall(r"<script", page)) == len(re.findall(r"</script>", page)) == 2


def test_a_page_stands_alone() -> None:
    page = tree_page(tree("$x^2$"))
    policy = re.findall(r'content="(default-src[^"]*)"', page)[0]
    assert "unsafe" not in policy and "http" not in policy and policy.count("'sha256-") == 2
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(./" not in style and style.count("data:font/woff2") == 20
    assert not re.search(
        r"<(?:img|iframe|object|link|base)\b|\ssrc=", page[: page.index("<script>")]
    )
    assert "@font-face" not in tree_page(tree("so"))  # nor is it larger than it must be


def test_the_command_exports_a_tree_by_its_id(
    folder: Path, trees: list[Tree], tmp_path, capsys
) -> None:
    out = tmp_path / "tree.html"
    assert main([str(folder), "--export", str(out), "--tree", "p3"]) == 0
    data = data_in(out.read_text("utf-8"))
    assert data["id"] == "p3" and data["verdicts"] and data["nodes"][1]["ucb"]
    assert main([str(folder), "--export", str(out), "--tree", "nobody"]) == 2
    assert "no tree with the id nobody" in capsys.readouterr().err
    assert main([str(tmp_path / "none"), "--export", str(out)]) == 2
    assert main([str(folder), "--export-annotations", str(out)]) == 2


def test_the_files_are_those_of_the_sources() -> None:
    told = "the page was changed: run `npm ci && npm run build` beside it, and commit the result"
    assert assets.built_from() == assets.digest_of(FRONTEND), told


def test_packages_are_pinned_by_their_hashes() -> None:
    lock = json.loads((FRONTEND / "package-lock.json").read_text("utf-8"))["packages"]
    asked = json.loads((FRONTEND / "package.json").read_text("utf-8"))
    for name, version in (asked["dependencies"] | asked["devDependencies"]).items():
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in entry for name, entry in lock.items() if name)
