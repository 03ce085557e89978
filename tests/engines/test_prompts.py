from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from marco.engines.prompts import ChatTokenizer
from marco.errors import UserError
from marco.search.pattern import Kinds

BODY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NODE_KINDS = ["sub_task", "hypothesis", "thinking", "double_check", "reflection", "answer"]


@pytest.fixture(scope="session")
def chat(embedded_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.load(embedded_folder)


@pytest.fixture(scope="session")
def control(chat: ChatTokenizer) -> dict[str, int]:
    """The control tokens as the tokenizer's own vocabulary names them."""
    added = chat.tokenizer.added_tokens_decoder
    return {token.content: id for id, token in added.items() if token.special}


def test_model_text_never_becomes_a_control_token(
    chat: ChatTokenizer, control: dict[str, int]
) -> None:
    assert {"<|im_end|>", "<|im_start|>", "<filename>"} <= control.keys()
    for token in control:
        for text in (token, f"so{token}then", f" {token}\n", token * 3):
            ids = chat.encode(text)
            assert not set(ids) & set(control.values())
            assert chat.tokenizer.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(BODY, st.sampled_from(["<|im_end|>", "<|im_start|>", "\n", " "]))))
def test_text_is_encoded_as_transformers_does(chat: ChatTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    slowly = chat.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert chat.encode(text) == tuple(slowly)


@settings(max_examples=50, deadline=None)
@given(st.lists(BODY, min_size=1, max_size=5))
def test_a_prompt_is_what_transformers_makes_of_it(
    chat: ChatTokenizer, control: dict[str, int], texts: list[str]
) -> None:
    assume(not any(token in text for token in control for text in texts))
    roles = ["user", "assistant"] * 3
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)]
    whole = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert chat.prompt(messages) == tuple(whole["input_ids"])


def test_a_tokenizer_that_strips_beside_control_tokens_is_given_the_whole(
    embedded_folder: Path,
) -> None:
    tokenizer = ChatTokenizer.load(embedded_folder).tokenizer
    tokenizer.add_special_tokens({"eos_token": AddedToken("<|im_end|>", rstrip=True)})
    stripping = ChatTokenizer(tokenizer, source="stripping")
    messages = [{"role": "user", "content": "4 * 5?"}]
    whole = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert stripping.prompt(messages) == tuple(whole["input_ids"])
    assert not stripping._is_encoded_by_parts


def test_a_prompt_with_a_control_token_is_refused(
    chat: ChatTokenizer, control: dict[str, int]
) -> None:
    for token in control:
        with pytest.raises(UserError, match="control token"):
            chat.prompt([{"role": "user", "content": f"What is{token}1 + 1?"}])


def test_the_prompt_ends_where_the_assistant_speaks(
    chat: ChatTokenizer, control: dict[str, int]
) -> None:
    prompt = chat.prompt([{"role": "user", "content": "What is 1 + 1?"}])
    text = chat.tokenizer.decode(prompt)
    assert text.endswith("user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n")
    turns = text.count("<|im_start|>")
    assert sum(id == control["<|im_start|>"] for id in prompt) == turns


@settings(max_examples=100, deadline=None)
@given(
    nodes=st.lists(st.tuples(st.sampled_from(NODE_KINDS), BODY), min_size=2, max_size=4),
    following=st.sampled_from(NODE_KINDS),
)
def test_node_boundaries_are_token_boundaries(
    chat: ChatTokenizer, kinds: Kinds, nodes: list[tuple[str, str]], following: str
) -> None:
    """encode(a) + encode(b) = encode(a + b): a path's ids only ever grow, and caches hold."""
    texts = [kinds[kind].write(kinds[kind].prefixes[0], body) for kind, body in nodes]
    texts.append(kinds[following].opening + kinds[following].prefixes[0])
    assert sum((chat.encode(text) for text in texts), ()) == chat.encode("".join(texts))


def test_a_missing_chat_template_is_named() -> None:
    tokenizer = SimpleNamespace(chat_template=None, eos_token_id=1)
    with pytest.raises(UserError, match="some/model has no chat template"):
        ChatTokenizer(tokenizer, source="some/model")


def test_a_missing_end_of_turn_token_is_named() -> None:
    tokenizer = SimpleNamespace(chat_template="{{ messages }}", eos_token_id=None)
    with pytest.raises(UserError, match="some/model has no end-of-turn token"):
        ChatTokenizer(tokenizer, source="some/model")


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"cannot load the tokenizer of {tmp_path}"):
        ChatTokenizer.load(tmp_path)


def test_the_general_tokenizer_class_reads_the_folder_as_its_models_class_does(
    embedded_folder: Path,
) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from marco.engines.prompts import _tokenizer_class

    assert _tokenizer_class(embedded_folder) is PreTrainedTokenizerFast
    ours, theirs = (
        ChatTokenizer.load(embedded_folder),
        AutoTokenizer.from_pretrained(embedded_folder),
    )
    messages = [{"role": "user", "content": "What is 3 * 4 + 5?\n\n<thinking> “so” \u2028 12"}]
    assert (
        list(ours.prompt(messages))
        == theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
    )
    assert ours.eos_token_id == theirs.eos_token_id
    assert set(theirs.all_special_tokens) <= set(ours.control_tokens)


def test_other_tokenizer_classes_are_looked_up(tmp_path: Path, embedded_folder: Path) -> None:
    from transformers import AutoTokenizer

    from marco.engines.prompts import _tokenizer_class

    (tmp_path / "tokenizer.json").write_text("{}")
    assert _tokenizer_class(tmp_path) is AutoTokenizer
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    assert _tokenizer_class(tmp_path) is AutoTokenizer
