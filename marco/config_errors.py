"""What is wrong with a config, told with the file and the key that a person wrote."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from marco.errors import near
from marco.tasks.registry import TASKS


def told(error: Any, values: Any, choices: Mapping[str, Any], config: type[BaseModel]) -> str:
    """One of pydantic's errors in the values of a `config`, as a line: file, key, what is wrong.

    `choices` are Hydra's group choices, by which a key is traced to its file.
    """
    path = _keys(error["loc"], values)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key" + near(path[-1], _siblings(path, values, config))
    elif error["type"] == "missing":
        message = "missing"
    elif not isinstance(error.get("input"), Mapping):
        message += f", got {_short(error.get('input'))}"
    where = _file(path, choices)
    return (f"{where}: " if where else "") + (f"{'.'.join(path)}: " if path else "") + message


def _keys(places: Sequence[str | int], values: Any) -> list[str]:
    """The keys among an error's places, which also name what was chosen of several sections."""
    path, value = [], values
    for place in map(str, places):
        is_choice = isinstance(value, Mapping) and place not in value and place == value.get("name")
        if is_choice or place.startswith(("function-", "lax-")):
            continue
        if place not in ("Pattern", "MixedPattern", *TASKS):
            path.append(place)
            value = value.get(place) if isinstance(value, Mapping) else None
    return path


def _siblings(path: Sequence[str], values: Any, config: type[BaseModel]) -> list[str]:
    model, value = config, values
    for part in path[:-1]:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        options = getattr(annotation, "__args__", (annotation,))
        sections = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not sections:
            return []
        value = value.get(part) if isinstance(value, Mapping) else None
        model = next((s for s in sections if _is_of(s, value)), sections[0])
    return list(model.model_fields)


def _is_of(section: type[BaseModel], value: Any) -> bool:
    if "name" not in section.model_fields or not isinstance(value, Mapping):
        return False
    return value.get("name") in get_args(section.model_fields["name"].annotation)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _file(path: Sequence[str], choices: Mapping[str, Any]) -> str:
    """The file of the deepest chosen group that a key lies in."""
    for depth in range(len(path), 0, -1):
        package = ".".join(path[:depth])
        for group, choice in choices.items():
            name, _, target = group.partition("@")
            if choice and package == (target or name.replace("/", ".")):
                return f"conf/{name}/{choice}.yaml"
    return ""
