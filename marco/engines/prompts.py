"""Prompts in token ids, built here from the chat template, so that a path's ids only ever grow."""

import copy
import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from marco.errors import UserError

Message = dict[str, str]

# Llama 3's templates write today's date into the prompt. A run must not depend on its day, so they
# are given the date that they take where they know none.
DATE = "26 Jul 2024"


class ChatTokenizer:
    """A model's tokenizer and chat template.

    Text never becomes a control token: `<|im_end|>` written by a model stays ten characters.
    """

    def __init__(self, tokenizer: Any, *, source: str) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"{source} has no chat template: add `chat_template` to its tokenizer_config.json, "
                "or take an instruction-tuned model"
            )
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"{source} has no end-of-turn token (eos_token in tokenizer_config.json)"
            )
        self.tokenizer, self.source = tokenizer, source
        # `all_special_tokens` names three of the seventeen that SmolLM2 has.
        self.control_tokens = sorted(
            {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
            | set(tokenizer.all_special_tokens)
        )
        self.eos_token_id: int = tokenizer.eos_token_id
        self.encode = lru_cache(maxsize=4096)(_encoder(tokenizer))
        self._control = re.compile("|".join(map(re.escape, self._longest_first())) or "(?!)")
        self._is_encoded_by_parts: bool | None = None  # known from the first prompt on

    @classmethod
    def load(cls, path: Path | str) -> "ChatTokenizer":
        """From a Hugging Face folder or name; UserError where there is none."""
        try:
            tokenizer = _tokenizer_class(Path(path)).from_pretrained(path)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"cannot load the tokenizer of {path}: {reason}") from error
        return cls(tokenizer, source=str(path))

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of a conversation up to where the assistant speaks."""
        # The control tokens are the template's: the contents hold none.
        for message in messages:
            for token in self.control_tokens:
                if token in message["content"]:
                    raise UserError(f"a prompt holds the control token {token!r}: {self.source}")
        text = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=True, date_string=DATE, tokenize=False
        )
        if self._is_encoded_by_parts is None:
            self._is_encoded_by_parts = self._by_parts(text) == self._whole(text)
        return self._by_parts(text) if self._is_encoded_by_parts else self._whole(text)

    def as_text(self, written: str) -> str:
        """What a model wrote, fit for a prompt: a control token in it is taken apart.

        A zero-width space after its first character keeps the template's tokens the only ones.
        """
        for token in self._longest_first():
            if token in written:
                written = written.replace(token, f"{token[0]}\u200b{token[1:]}")
        return written

    def _whole(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _by_parts(self, text: str) -> tuple[int, ...]:
        """The texts between control tokens, each by itself: worked examples come again and again.

        The same as the whole, unless a tokenizer strips what is beside a control token, or begins a
        text in another way than it goes on.
        """
        ids: list[int] = []
        end = 0
        for found in self._control.finditer(text):
            ids += self.encode(text[end : found.start()])
            ids.append(self.tokenizer.convert_tokens_to_ids(found[0]))
            end = found.end()
        return (*ids, *self.encode(text[end:]))

    def _longest_first(self) -> list[str]:
        return sorted(self.control_tokens, key=len, reverse=True)


def _encoder(tokenizer: Any) -> Callable[[str], tuple[int, ...]]:
    """What encodes text as text; a control token in it is taken apart like any other characters.

    Transformers sets up its Rust tokenizer again in each call, and has it find the place of each
    token in the text: twice the time for a node. A copy that is set up once needs neither.
    """
    backend: Any = copy.deepcopy(getattr(tokenizer, "backend_tokenizer", None))
    if backend is None:  # a tokenizer in Python
        return lambda text: tuple(
            tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )
    backend.encode_special_tokens = True
    backend.no_truncation()
    backend.no_padding()
    return lambda text: tuple(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)


def _tokenizer_class(folder: Path) -> Any:
    """The class that reads a folder's tokenizer.

    Where its config names the general class, that is taken as it is: to look it up by way of the
    models imports all of torch, which takes a search or a dataset eight seconds.
    """
    import transformers

    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        is_general = config.get("tokenizer_class") in (
            "TokenizersBackend",
            "PreTrainedTokenizerFast",
        )
    except (OSError, ValueError, AttributeError):
        is_general = False
    if is_general and (folder / "tokenizer.json").is_file():
        return transformers.PreTrainedTokenizerFast
    return transformers.AutoTokenizer
