"""What may leave the machine: listed config sections, and texts, less everything that is secret.

And what may not even come into a config, since configs are written down everywhere.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

_SECRET_NAME = re.compile(
    r"key|token|secret|passw|passphrase|credential|auth|cookie|bearer|private|signature", re.I
)
_COUNT_NAME = re.compile(r"(^|_)tokens(_|$)", re.I)  # max_tokens, tokens_mean: how many, not which
# Models write texts that are looked through: every repetition that may fail has a bound.
_NAMED = r"(?:key|token|secret|passw|auth|sig)"
_QUERY = rf"[?&][^=&\s]{{0,40}}{_NAMED}[^=&\s]{{0,40}}="  # of an address
_KEYS = (
    r"\b(?:sk|hf|ghp|gho|github_pat|glpat|xox[abprs]|pypi)[-_][A-Za-z0-9_-]{12,}",
    r"\bAKIA[A-Z0-9]{12,}",
)
_SECRET_VALUE = re.compile(  # of a config, which no model writes
    "|".join(
        (
            r"://[^/\s@]+@",  # a user and password in an address
            rf"[?&][^=&\s]*{_NAMED}[^=&\s]*=",
            r"\b(?:bearer|basic)\s+\S",
            *_KEYS,
            r"\beyJ[\w-]{8,}\.[\w-]{8,}\.",  # a JSON web token
            "-----BEGIN ",
        )
    ),
    re.I,
)
# The same in prose, where the words alone are harmless: the first group stays.
_SECRETS_IN_TEXT = [
    re.compile(pattern, re.I)
    for pattern in (
        r"(://)[^/\s@]+(?=@)",
        rf"({_QUERY})[^&\s\"'<>]+",
        r"(\b(?:bearer|basic)\s{1,9})(?=[^\s\d]{0,200}\d)[A-Za-z0-9+/_.=-]{16,}",
        r"(\b[\w-]{0,40}(?:api_?key|passw(?:or)?d|client_?secret|secret_?key|(?:access|auth)_?token)"
        r"[\w-]{0,40}[\"']?\s{0,9}[=:]\s{0,9}[\"']?)(?!\[removed)[^\s\"',;&]{6,}",
        *(f"(){key}" for key in _KEYS),
        r"()\beyJ[\w-]{8,500}\.[\w-]{8,4000}\.[\w-]*",
        r"()-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----END)[\s\S])*"
        r"(?:-----END[A-Z ]*-----)?",
    )
]
_PASSWORD = re.compile(  # of an address, before its host or in its query
    rf"://(?:[^/\s@:]*:)?([^/\s@]+)@|{_QUERY}([^&\s]+)", re.I
)
# What no config and no error needs: narrower than the above, since runs are refused for it, and
# what a library says must stay readable.
_CREDENTIALS = re.compile(
    r"(?i:(?<=https://)|(?<=http://))[^/\s@]+(?=@)|(?<=://)[^/\s@:]+:[^/\s@]+(?=@)"
    r"|(?P<query>[?&](?:[\w.-]*[_-])?"
    r"(?i:api_?key|key|token|secret|sig|signature|credential|password|passwd|auth)=)[^&\s\"'<>]+"
    r"|\b(?:hf_|gh[po]_|sk-)[A-Za-z0-9]{20,}|\bsk-(?:proj|ant|svcacct)-[\w-]{20,}"
    r"|\b(?:github_pat_|glpat-|xox[abprs]-|pypi-Ag)[\w-]{20,}"
    r"|\bAKIA[A-Z0-9]{12,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----",
)
_CREDENTIAL_NAME = re.compile(
    r"(?:^|_)(?:(?:api_?|access_|secret_|private_)key|token|passw(?:or)?d|passphrase|secret)$", re.I
)
# What people call keys, besides: such a variable's value is removed from texts, and no run is
# refused for it. PWD itself is a folder.
_CREDENTIAL_VARIABLE = re.compile(
    rf"{_CREDENTIAL_NAME.pattern}|(?:^|_)(?:key|pat)$|(?:password|_pwd)$", re.I
)
_REMOVED = "[removed]"
_SHORTEST_SECRET = 6  # characters; shorter values match by chance
_SHORTEST_CREDENTIAL = 12  # of the environment's, below which ordinary words might be meant


def allowed(settings: Mapping[str, Any], *, sections: Sequence[str]) -> dict[str, Any]:
    """The `sections` of the settings without entries whose name or value looks secret.

    An entry is left out, not masked, if its name speaks of keys, tokens, passwords and the like
    (a count such as `max_tokens` stays when it is a number), or if its text carries credentials,
    or the value of a secret of the environment. What is neither mapping, list, text, number, bool
    nor None is left out too.
    """
    known = _environment_secrets()
    return {name: value for name, value in _entries(settings, known) if name in sections}


class Redactor:
    """Takes secrets out of whatever a run shows: texts of models, figures' names, errors.

    They are the values of the environment and of `settings` whose names are secret, passwords of
    addresses among them, and what looks like a key. What stands in a text is replaced by
    `[removed]`, and characters that no file can hold (lone surrogates) by `?`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        known = {*_environment_secrets(), *_secrets_of(settings)}
        # The longest first: one may hold another.
        self._known = sorted(known, key=len, reverse=True)

    def __call__(self, value: Any) -> Any:
        """The value without secrets; a mapping's names too, and a path as text."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self(str(name)): self(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple | set):
            return [self(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self._text(str(value))

    def _text(self, text: str) -> str:
        text = text.encode("utf-8", "replace").decode("utf-8")
        for secret in self._known:
            text = text.replace(secret, _REMOVED)
        for pattern in _SECRETS_IN_TEXT:
            text = pattern.sub(lambda found: found[1] + _REMOVED, text)
        return text


def credentials(values: Any, place: str = "") -> Iterator[str]:
    """The keys, joined with dots, whose value is or carries a password, a token or a key."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from credentials(value, f"{place}.{name}" if place else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from credentials(value, place)
    elif isinstance(values, str) and values:
        name = place.rpartition(".")[2]
        known = _environment_credentials(tuple(os.environ.items()), _CREDENTIAL_NAME)
        carries = _CREDENTIALS.search(values) or any(secret in values for secret in known)
        if _CREDENTIAL_NAME.search(name) or carries:
            yield place


def without_credentials(text: str) -> str:
    """The text with `[removed]` for what is surely a password, a token or a key."""
    for secret in _environment_credentials(tuple(os.environ.items()), _CREDENTIAL_VARIABLE):
        text = text.replace(secret, _REMOVED)
    return _CREDENTIALS.sub(lambda found: (found["query"] or "") + _REMOVED, text)


@cache
def _environment_credentials(
    environment: tuple[tuple[str, str], ...], named: re.Pattern[str]
) -> list[str]:
    """Values of variables that are `named` as credentials, and passwords of addresses."""
    found = {password for _, value in environment for password in _long(_passwords(value))}
    for name, value in environment:
        is_long = len(value) >= _SHORTEST_CREDENTIAL
        if is_long and named.search(name) and not os.path.exists(value):
            found.add(value)
    return sorted(found, key=len, reverse=True)


def _secrets_of(values: Any, *, is_secret: bool = False) -> Iterator[str]:
    """Texts under secret names at any depth, and the passwords of addresses."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _secrets_of(value, is_secret=is_secret or _secret_name(str(name), value))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _secrets_of(value, is_secret=is_secret)
    elif isinstance(values, str):
        yield from _long([values] if is_secret else _passwords(values))


def _passwords(text: str) -> list[str]:
    return [password for found in _PASSWORD.findall(text) for password in found]


def _long(secrets: Iterable[str]) -> list[str]:
    return [secret for secret in secrets if len(secret) >= _SHORTEST_SECRET]


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
    found = []
    for name, value in os.environ.items():
        is_secret = _SECRET_NAME.search(name) or (
            _CREDENTIAL_VARIABLE.search(name) and not os.path.exists(value)
        )
        found += _long([value] if is_secret else _passwords(value))
    return found
