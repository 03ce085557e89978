import pytest
from fastapi.testclient import TestClient

from marco.search.tree import Tree
from marco.viewer.annotations import AnnotationStore
from marco.viewer.index import distinct_chains

from .conftest import PORT


def save(client: TestClient, store: AnnotationStore, *, token: str | None = None, **changes):
    body = {"request": "r1", "annotator": "ada", "tab": "t", "n": 0, "node": 0, "label": "correct"}
    body |= {"text": None, "seen": None} | changes
    headers = {"x-token": store.token if token is None else token}
    return client.post("/api/annotations/save", json=body, headers=headers)


def leaves(tree: Tree) -> list[int]:
    return [leaf.id for _, leaf, _ in distinct_chains(tree)]


# Security ---------------------------------------------------------------------------------------


def test_every_answer_forbids_scripts_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/api/session", "/api/trees/0", "/static/viewer.js", "/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_has_no_inline_script_style_or_outside_address(client: TestClient) -> None:
    page = client.get("/").text
    assert "<script src=" in page and page.count("<script") == 1
    assert "style=" not in page and "<style" not in page and "//" not in page.replace("<!", "")


@pytest.mark.parametrize("host", ["evil.test", f"evil.test:{PORT}", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/session", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.test", "null", f"https://127.0.0.1:{PORT}"])
def test_another_origin_is_refused(client: TestClient, origin: str) -> None:
    assert client.get("/api/session", headers={"origin": origin}).status_code == 403


def test_another_site_may_link_but_not_read(client: TestClient) -> None:
    elsewhere = {"sec-fetch-site": "cross-site"}
    assert (
        client.get("/api/session", headers=elsewhere | {"sec-fetch-mode": "no-cors"}).status_code
        == 403
    )
    assert client.get("/", headers=elsewhere | {"sec-fetch-mode": "navigate"}).status_code == 200
    own = {"host": f"localhost:{PORT}", "origin": f"http://localhost:{PORT}"}
    assert client.get("/api/session", headers=own).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static//etc/passwd",
        "/static/build.json",
        "/api/trees/../../config.yaml",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_but_the_own_files_is_handed_out(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (404, 422)


def test_writing_needs_the_token(
    client: TestClient, store: AnnotationStore, trees: list[Tree]
) -> None:
    node = leaves(trees[0])[0]
    for token in ("", "wrong", "é"):
        answer = client.post(
            "/api/annotations/save",
            json={"request": "r", "annotator": "a", "tab": "t", "n": 0, "node": node, "label": None,
                  "text": None, "seen": None},
            headers={"x-token": token.encode()},
        )  # fmt: skip
        assert answer.status_code == 403
    assert client.post("/api/annotations/undo", json={}).status_code == 403
    assert store.counts("a")["correct"] == 0
    assert save(client, store, node=node).status_code == 200


# Trees ------------------------------------------------------------------------------------------


def test_the_list_and_a_tree(client: TestClient, trees: list[Tree]) -> None:
    found = client.get(
        "/api/trees", params={"verdict": "correct", "sort": "nodes", "limit": 2}
    ).json()
    assert len(found["rows"]) == 2
    holding = sum(any(n.verdict == "correct" for n in tree.nodes) for tree in trees)
    assert found["counts"]["trees"] == holding
    tree = client.get("/api/trees/2").json()
    assert [node["text"] for node in tree["nodes"]] == [node.text for node in trees[2].nodes]
    assert [chain["node"] for chain in tree["chains"]] == leaves(trees[2])


def test_ucb_is_what_the_search_would_weigh(client: TestClient, trees: list[Tree]) -> None:
    from math import log, sqrt

    nodes = client.get("/api/trees/0").json()["nodes"]
    assert nodes[0]["ucb"] is None
    child = next(node for node in nodes[1:] if node["visits"])
    n, parent = child["visits"], nodes[child["parent"]]["visits"]
    assert child["ucb"] == pytest.approx(child["value"] / n + 1.414 * sqrt(log(parent) / n))


def test_every_finished_node_has_a_reason(client: TestClient, trees: list[Tree]) -> None:
    for n, tree in enumerate(trees):
        told = client.get(f"/api/trees/{n}/verdicts").json()
        reasons = {node: verdict["why"] for node, verdict in told.items()}
        assert set(reasons) == {str(node.id) for node in tree.nodes if node.verdict}
        for node in tree.nodes:
            if node.finish == "length":
                assert reasons[str(node.id)] == "the node outran node_tokens"
                classes = told[str(node.id)]["error_classes"]
                assert "truncation" in classes or node.id not in leaves(tree)
            elif node.verdict == "wrong":
                assert "gold 1" in reasons[str(node.id)] and "today" not in reasons[str(node.id)]


def test_the_steps_and_what_they_need(client: TestClient, folder, trees: list[Tree]) -> None:
    steps = client.get("/api/trees/1/steps").json()
    assert sum(step["event"] == "expansion" for step in steps) == len(trees[1].nodes) - 1
    (folder / "journal" / "worker-0.sqlite").unlink()
    answer = client.get("/api/trees/1/steps")
    assert answer.status_code == 422 and "no journal/" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/api/trees/99", "/api/trees/-1", "/api/pairs/0"])
def test_what_is_not_there(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "query", ["sort=n;drop table trees", "limit=0", "limit=501", "offset=-1", "verdict=maybe"]
)
def test_what_makes_no_sense_is_refused(client: TestClient, query: str) -> None:
    assert client.get(f"/api/trees?{query}").status_code == 422


# Annotation -------------------------------------------------------------------------------------


def test_a_chain_is_labelled_edited_exported_and_undone(
    client: TestClient, store: AnnotationStore, trees: list[Tree]
) -> None:
    node = leaves(trees[0])[0]
    state = save(client, store, node=node, label="wrong", text="<answer>\n5\n</answer>\n").json()
    shown = client.get("/api/annotations", params={"annotator": "ada", "tree": "p0"}).json()
    assert shown == [state] and state["label"] == "wrong"
    line = client.get("/api/annotations/export").json()
    assert (line["tree"], line["label"], line["annotator"]) == ("p0", "wrong", "ada")
    progress = client.get("/api/annotations/progress", params={"annotator": "ada"}).json()
    assert (progress["wrong"], progress["edited"]) == (1, 1)
    body = {"request": "r2", "annotator": "ada", "tab": "t"}
    headers = {"x-token": store.token}
    undone = client.post("/api/annotations/undo", json=body, headers=headers).json()
    assert undone["n"] == 0 and undone["state"]["label"] is None
    assert client.get("/api/annotations/export").text == ""


def test_the_next_chain_without_a_label(
    client: TestClient, store: AnnotationStore, trees: list[Tree]
) -> None:
    first, second, third = leaves(trees[0])[:3]
    save(client, store, node=first)
    save(client, store, node=second, request="r2")

    def following(**values):
        return client.get("/api/annotations/next", params={"annotator": "ada"} | values).json()

    assert following(todo=True)["chain"] == {"n": 0, "node": third}
    assert following()["chain"] == {"n": 0, "node": first}
    assert following(n=0, node=third, backwards=True)["chain"] == {"n": 0, "node": second}
    assert following(n=7, node=10**6) == {"chain": None, "after": None}


def test_two_tabs_do_not_overwrite_each_other(
    client: TestClient, store: AnnotationStore, trees: list[Tree]
) -> None:
    node = leaves(trees[0])[0]
    first = save(client, store, node=node).json()
    late = save(client, store, node=node, request="r2", tab="u", label="discard")
    assert late.status_code == 409 and late.json()["state"] == first
    again = save(
        client, store, node=node, request="r3", tab="u", label="discard", seen=first["seq"]
    )
    assert again.json()["label"] == "discard"


@pytest.mark.parametrize(
    "changes", [{"node": 0}, {"n": 99}, {"label": "maybe"}, {"annotator": ""}, {"more": 1}]
)
def test_a_save_that_makes_no_sense(
    client: TestClient, store: AnnotationStore, changes: dict
) -> None:
    assert save(client, store, **changes).status_code in (404, 422)
