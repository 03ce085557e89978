"""What may leave the machine: listed config sections, less everything that looks secret."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SECRET_NAME = re.compile(
    r"key|token|secret|passw|passphrase|credential|auth|cookie|bearer|private|signature", re.I
)
_COUNT_NAME = re.compile(r"(^|_)tokens(_|$)", re.I)  # max_tokens, tokens_mean: how many, not which
_SECRET_VALUE = re.compile(
    r"://[^/\s@]+@"  # a user and password in an address
    r"|[?&][^=&\s]*(?:key|token|secret|passw|auth|sig)[^=&\s]*="  # or in its query
    r"|\b(?:bearer|basic)\s+\S"
    r"|\b(?:sk|hf|ghp|gho|github_pat|glpat|xox[abprs]|pypi)[-_][A-Za-z0-9_-]{12,}"
    r"|\bAKIA[A-Z0-9]{12,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\."  # a JSON web token
    r"|-----BEGIN ",
    re.I,
)
_SHORTEST_SECRET = 6  # characters; shorter values of the environment match by chance


def allowed(settings: Mapping[str, Any], *, sections: Sequence[str]) -> dict[str, Any]:
    """The `sections` of the settings without entries whose name or value looks secret.

    An entry is left out, not masked, if its name speaks of keys, tokens, passwords and the like
    (a count such as `max_tokens` stays when it is a number), or if its text carries credentials,
    or the value of a secret of the environment. What is neither mapping, list, text, number, bool
    nor None is left out too.
    """
    known = _environment_secrets()
    return {name: value for name, value in _entries(settings, known) if name in sections}


def _entries(settings: Mapping[Any, Any], known: Sequence[str]) -> list[tuple[str, Any]]:
    kept = []
    for name, value in settings.items():
        name = str(name)
        if _secret_name(name, value) or _secret_text(name, known) or not _plain(value, known):
            continue
        kept.append((name, _cleaned(value, known)))
    return kept


def _cleaned(value: Any, known: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return dict(_entries(value, known))
    if isinstance(value, list | tuple):
        return [_cleaned(item, known) for item in value if _plain(item, known)]
    return value


def _plain(value: Any, known: Sequence[str]) -> bool:
    if isinstance(value, str):
        return not _secret_text(value, known)
    return value is None or isinstance(value, bool | int | float | Mapping | list | tuple)


def _secret_name(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and _COUNT_NAME.search(name):
        return False
    return bool(_SECRET_NAME.search(name))


def _secret_text(text: str, known: Sequence[str]) -> bool:
    return bool(_SECRET_VALUE.search(text)) or any(secret in text for secret in known)


def _environment_secrets() -> list[str]:
    return [
        value
        for name, value in os.environ.items()
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET
    ]
