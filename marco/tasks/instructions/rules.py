"""Which checker an instruction id stands for, in IFEval and in Multi-IF, and what it asks for."""

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from marco.errors import UserError, near
from marco.tasks.instructions import checkers

Checker = Callable[..., bool]
Rules = Mapping[str, Checker]

IFEVAL: Rules = {
    "keywords:existence": checkers.keywords_existence,
    "keywords:frequency": checkers.keyword_frequency,
    "keywords:forbidden_words": checkers.forbidden_words,
    "keywords:letter_frequency": checkers.letter_frequency,
    "language:response_language": checkers.response_language,
    "length_constraints:number_sentences": checkers.number_sentences,
    "length_constraints:number_paragraphs": checkers.number_paragraphs,
    "length_constraints:number_words": checkers.number_words,
    "length_constraints:nth_paragraph_first_word": checkers.nth_paragraph_first_word,
    "detectable_content:number_placeholders": checkers.number_placeholders,
    "detectable_content:postscript": checkers.postscript,
    "detectable_format:number_bullet_lists": checkers.number_bullet_lists,
    "detectable_format:constrained_response": checkers.constrained_response,
    "detectable_format:number_highlighted_sections": checkers.number_highlighted_sections,
    "detectable_format:multiple_sections": checkers.multiple_sections,
    "detectable_format:json_format": checkers.json_format,
    "detectable_format:title": checkers.title,
    "combination:two_responses": checkers.two_responses,
    "combination:repeat_prompt": checkers.repeat_prompt,
    "startend:end_checker": checkers.end_checker,
    "startend:quotation": checkers.quotation,
    "change_case:capital_word_frequency": checkers.capital_word_frequency,
    "change_case:english_capital": checkers.english_capital,
    "change_case:english_lowercase": checkers.english_lowercase,
    "punctuation:no_comma": checkers.no_comma,
}
MULTI_IF: Rules = {
    **IFEVAL,
    "length_constraints:number_sentences": checkers.number_sentences_by_language,
    "length_constraints:number_words": checkers.number_words_by_language,
    "startend:quotation": checkers.quotation_of_any_script,
}


def checked_kwargs(id: str, given: Mapping[str, Any], rules: Rules, where: str) -> dict[str, Any]:
    """What an instruction asks for, without the nulls and names that its checker does not take.

    UserError says `where` an id is unknown (with what is near it), or what is missing or wrong.
    """
    if id not in rules:
        raise UserError(f"{where}: no instruction {id!r}{near(id, rules)}")
    kwargs = {}
    for name, kind in _kinds(rules[id]).items():
        if given.get(name) is None:
            raise UserError(f"{where}: {id} lacks `{name}`")
        try:
            kwargs[name] = kind.validate_python(given[name])
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise UserError(f"{where}: {id} has `{name}` {given[name]!r:.60} ({said})") from error
    return kwargs


@cache
def _kinds(checker: Checker) -> dict[str, TypeAdapter[Any]]:
    """The checker's keyword-only parameters, as what their values must be."""
    return {
        name: TypeAdapter(parameter.annotation)
        for name, parameter in inspect.signature(checker).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
