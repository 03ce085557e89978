from marco.data.chains import chains_of

from .trees import encode, mixed_tree, node, tree


def test_chains_are_the_paths_to_nodes_with_a_verdict_without_duplicates():
    chains = chains_of(mixed_tree(), encode)
    assert [(c.node, c.text, c.verdict, c.tokens) for c in chains] == [
        (2, "a 4", "correct", 3),
        (3, "a 5", "wrong", 3),
        (5, "b four", "correct", 6),
        (6, "b nine", "wrong", 6),
        (7, "b", "no_answer", 1),
    ]
    assert chains[0].parts == (("thinking", 1), ("answer", 2))
    assert chains[0].ids == (97, 32, 52)
    assert chains[0].tree_id == "t0"


def test_an_unfinished_path_is_no_chain():
    assert chains_of(tree("t", [node(0, None, "prompt"), node(1, 0, "a")]), encode) == []


def test_ids_of_a_path_are_a_prefix_of_its_childrens():
    # A tokenizer that joins what stands together would join "ab" across the nodes.
    def joining(text: str) -> list[int]:
        return [len(text)]

    nodes = [
        node(0, None, "prompt"),
        node(1, 0, "a", "correct"),
        node(2, 1, "bb", "correct"),
        node(3, 1, "ccc", "wrong"),
    ]
    assert [c.ids for c in chains_of(tree("t", nodes), joining)] == [(1,), (1, 2), (1, 3)]


def test_texts_with_the_same_token_ids_are_one_chain():
    nodes = [
        node(0, None, "prompt"),
        node(1, 0, "\u00e9", "correct"),
        node(2, 0, "e\u0301", "wrong"),
    ]
    one_id = chains_of(tree("t", nodes), lambda text: [7])
    assert [(c.node, c.verdict) for c in one_id] == [(1, "correct")]
