from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from marco.reporting.tree_html import tree_page
from marco.search.tree import Node, Tree

HOSTILE = """</pre></details><script>alert(1)</script><img src=x onerror="alert(2)"> ' &amp; <!--"""
WRITTEN = {"!doctype", "html", "head", "meta", "title", "style", "body", "h1", "p", "pre"}
WRITTEN |= {"details", "summary", "small", "b"}


class Page(HTMLParser):
    """What a browser would see: elements with their depth in `<details>`, attributes, texts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.depth, self.depths, self._in = 0, [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._in = tag
        if tag == "pre":
            self.texts.append("")
            self.depths.append(self.depth)
        self.depth += tag == "details"

    def handle_endtag(self, tag):
        self._in = ""
        self.depth -= tag == "details"

    def handle_data(self, data):
        if self._in == "pre":
            self.texts[-1] += data


def tree(*parents, text="thought", **changes):
    """A tree whose node i + 1 has the i-th parent."""
    nodes = [Node(id=0, parent=None, kind="prompt", model=None, text="")]
    for i, parent in enumerate(parents, start=1):
        nodes.append(
            Node(id=i, parent=parent, kind="thinking", model="m", text=f"{text} {i}", tokens=3)
        )
    values = {
        "id": "t-1",
        "task": "arithmetic",
        "problem": "2 + 2?",
        "gold": "4",
        "pattern": "a",
        "models": {"main": "tiny"},
        "seed": 0,
        "status": "solved",
        "usage": {"requests": 3},
    }
    return Tree(**values | changes, nodes=nodes)


def test_nodes_lie_within_their_parents():
    page = Page(tree_page(tree(0, 1, 2, 1, 0)))
    assert page.texts == ["2 + 2?"] + [f"thought {i}" for i in range(1, 6)]
    assert page.depths == [0, 1, 2, 3, 2, 1] and page.depth == 0


def test_a_node_tells_its_verdict_answer_and_mean_value():
    one = tree(0)
    one.nodes[1].verdict, one.nodes[1].answer = "wrong", "5"
    one.nodes[1].visits, one.nodes[1].value = 4, 3.0
    page = tree_page(one)
    assert "wrong: 5</b>" in page and "value 0.75 of 4 visits, 3 tokens" in page


def test_model_text_stays_text_wherever_it_stands():
    one = tree(
        0,
        text=HOSTILE,
        id=HOSTILE,
        problem=HOSTILE,
        gold=HOSTILE,
        models={HOSTILE: HOSTILE},
        status=HOSTILE,
    )
    node = one.nodes[1]
    node.kind = node.model = node.verdict = node.answer = HOSTILE
    page = Page(tree_page(one))
    assert page.texts == [HOSTILE, f"{HOSTILE} 1"]
    assert set(page.tags) <= WRITTEN
    assert not [name for name, _ in page.attributes if name.startswith("on") or name == "src"]


@given(st.text(), st.text())
def test_any_text_comes_back_as_it_was(text, problem):
    page = Page(tree_page(tree(0, text=text, problem=problem)))
    assert set(page.tags) <= WRITTEN
    seen = [seen.replace("\r\n", "\n").replace("\r", "\n") for seen in page.texts]
    told = [problem, f"{text} 1"]
    assert seen == [one.replace("\r\n", "\n").replace("\r", "\n") for one in told]


def test_the_page_forbids_scripts_and_loads_nothing():
    page = tree_page(tree(0))
    assert "default-src 'none'" in page
    assert "http://" not in page and "https://" not in page
