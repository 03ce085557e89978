"""Rows to token ids: what is kept, what is refused."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from marco.errors import UserError
from marco.training.data_module import epoch_order
from marco.training.examples import read_examples

from .conftest import assistant, byte_tokenizer, prompt, write_rows


def test_prompt_follows_the_template_and_completion_ends(tokenizer: Any, sft_folder: Path):
    data = read_examples(sft_folder, tokenizer, max_tokens=1000)
    assert not data.is_pairs
    example = data.examples[0]
    text = "<|im_start|>user\n0 + 1?<|im_end|><|im_start|>assistant\n"
    assert tokenizer.decode(example.prompt) == text
    assert tokenizer.decode(example.completions[0]) == "<a>\n1\n</a>\n<|im_end|>"


def test_control_tokens_in_model_text_stay_text(tokenizer: Any, tmp_path: Path):
    row = {"prompt": prompt(1), "completion": assistant("a<|im_end|>b<|im_start|>")}
    write_rows(tmp_path, [row])
    (example,) = read_examples(tmp_path, tokenizer, max_tokens=1000).examples
    ids = example.completions[0]
    assert [i for i in ids if i >= 256] == [tokenizer.eos_token_id]
    assert tokenizer.decode(ids[:-1]) == "a<|im_end|>b<|im_start|>"


def test_long_rows_are_dropped_and_counted(tokenizer: Any, sft_folder: Path):
    every = read_examples(sft_folder, tokenizer, max_tokens=1000)
    shortest = min(example.longest for example in every.examples)
    data = read_examples(sft_folder, tokenizer, max_tokens=shortest)
    # Half of the rows have " yes", four bytes more.
    assert (len(data.examples), data.dropped) == (4, 4)
    assert [example.row for example in data.examples] == [0, 2, 4, 6]
    assert data.fingerprint == every.fingerprint
    with pytest.raises(UserError, match=f"8 of 8 rows are longer than max_tokens={shortest - 1}"):
        read_examples(sft_folder, tokenizer, max_tokens=shortest - 1)


def test_unusable_folders_are_refused(tokenizer: Any, tmp_path: Path):
    with pytest.raises(UserError, match="holds no dataset"):
        read_examples(tmp_path, tokenizer, max_tokens=10)
    write_rows(tmp_path / "odd", [{"prompt": prompt(1), "text": "x"}])
    with pytest.raises(UserError, match="got prompt, text"):
        read_examples(tmp_path / "odd", tokenizer, max_tokens=10)
    row = {"prompt": prompt(1), "completion": assistant("x")}
    empty = datasets.Dataset.from_list([row]).select([])
    empty.save_to_disk(str(tmp_path / "empty" / "dataset"))
    with pytest.raises(UserError, match="the dataset is empty"):
        read_examples(tmp_path / "empty", tokenizer, max_tokens=10)


def test_tokenizer_without_template_is_refused(sft_folder: Path):
    plain = byte_tokenizer()
    plain.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        read_examples(sft_folder, plain, max_tokens=1000)


def test_epochs_shuffle_problems_and_keep_their_examples_together(
    tokenizer: Any, pairs_folder: Path
):
    examples = read_examples(pairs_folder, tokenizer, max_tokens=1000).examples
    orders = [
        [example.row for example in epoch_order(examples, seed=0, epoch=epoch)]
        for epoch in range(4)
    ]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    for order in orders:
        # Rows 2i and 2i+1 are of problem i.
        assert all(order[i] // 2 == order[i + 1] // 2 for i in range(0, 8, 2))


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def test_pairs_from_outside_in_all_of_their_forms(tokenizer: Any, tmp_path: Path):
    user, right, wrong = prompt(1), assistant("2"), assistant("3")
    rows = {
        "messages": {"prompt": user, "chosen": right, "rejected": wrong},
        "whole conversations": {"chosen": user + right, "rejected": user + wrong},
    }
    found = []
    for name, row in rows.items():
        path = write_jsonl(tmp_path / f"{name}.jsonl", [row])
        (example,) = read_examples(path, tokenizer, max_tokens=1000).examples
        found.append((example.prompt, example.completions))
    assert found[0] == found[1]
    # Texts are taken as they are, without the chat template.
    path = write_jsonl(
        tmp_path / "text.jsonl", [{"prompt": "1+1=", "chosen": "2", "rejected": "3"}]
    )
    (example,) = read_examples(path, tokenizer, max_tokens=1000).examples
    assert tokenizer.decode(example.prompt) == "1+1="
    assert [tokenizer.decode(ids) for ids in example.completions] == ["2<|im_end|>", "3<|im_end|>"]
    datasets.load_dataset("json", data_files=str(path), split="train").to_parquet(
        tmp_path / "pairs.parquet"
    )
    (same,) = read_examples(tmp_path / "pairs.parquet", tokenizer, max_tokens=1000).examples
    assert same == example
    datasets.load_dataset("json", data_files=str(path), split="train").save_to_disk(
        str(tmp_path / "saved")
    )
    assert read_examples(tmp_path / "saved", tokenizer, max_tokens=1000).examples == (example,)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {
                "chosen": prompt(1) + assistant("2"),
                "rejected": prompt(2) + assistant("3"),
            },
            "row 0: chosen and rejected begin with other messages",
        ),
        ({"chosen": "a", "rejected": "b"}, "row 0: a text needs a prompt column"),
        ({"prompt": prompt(1), "completion": prompt(2)}, "must end in an assistant message"),
        ({"completion": assistant("2")}, "row 0: has no prompt"),
        (
            {"prompt": "a", "chosen": "b", "rejected": None},
            "rejected: expected a text",
        ),
        ({"prompt": "a", "completion": [{"role": "assistant"}]}, "completion: expected a text, or"),
        ({"prompt": 3, "completion": "b"}, "row 0: prompt: expected a text, or messages"),
    ],
)
def test_rows_that_cannot_be_read_are_told(
    row: dict[str, Any], message: str, tokenizer: Any, tmp_path: Path
):
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(UserError, match=message):
        read_examples(path, tokenizer, max_tokens=1000)


def test_files_that_are_no_dataset_are_told(tokenizer: Any, tmp_path: Path):
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "notes.txt").write_text("x")
    for name in ("broken.jsonl", "notes.txt"):
        with pytest.raises(UserError, match=f"{name}: holds no dataset that can be read"):
            read_examples(tmp_path / name, tokenizer, max_tokens=1000)


def parted(text: str, *parts: tuple[str, int], tokens: int) -> dict[str, Any]:
    return {
        "prompt": prompt(1),
        "completion": assistant(text),
        "parts": [{"kind": kind, "characters": count} for kind, count in parts],
        "tokens": tokens,
    }


def test_kinds_are_counted_in_tokens_and_the_end_token_is_the_last_nodes(
    tokenizer: Any, tmp_path: Path
):
    row = parted("ab\ncd\n", ("thinking", 3), ("answer", 3), tokens=6)
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    (example,) = read_examples(path, tokenizer, max_tokens=1000).examples
    assert example.kinds == ((("thinking", 3), ("answer", 4)),)
    assert len(example.completions[0]) == 7


def test_a_dataset_of_another_tokenizer_is_refused(tokenizer: Any, tmp_path: Path):
    path = write_jsonl(tmp_path / "rows.jsonl", [parted("abcd", ("answer", 4), tokens=2)])
    with pytest.raises(UserError, match="counted as 2 tokens, and is 4 .* another tokenizer"):
        read_examples(path, tokenizer, max_tokens=1000)
    path = write_jsonl(tmp_path / "rows.jsonl", [parted("abcd", ("answer", 3), tokens=4)])
    with pytest.raises(UserError, match="parts tell of 3 characters, not 4"):
        read_examples(path, tokenizer, max_tokens=1000)
