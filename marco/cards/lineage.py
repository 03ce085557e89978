"""The lineage of a stage, by manifests; and what of the configs in it may be told elsewhere."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marco.identity import without_volatile
from marco.manifest import CONFIG, MANIFEST, order_of, read_manifest
from marco.reporting.allowlist import allowed

# The sections of a stage's config that are told.
SECTIONS = {
    "student": ("student", "dataset", "seed", "loss", "trainer"),
    "reference": ("student", "dataset", "precision", "max_tokens"),
    "dataset": ("form", "bucket", "data", "pairs", "published", "error_classes", "student"),
    "trees": ("task", "models", "pattern", "search", "search_seed"),
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A stage, or what came from outside, in the lineage of another.

    `use` is what it is an input as (`start`, `dataset`, ...); `folder` is None where no manifest of
    it is to be had; `is_repeated` where it stands in the lineage already, with what it is made of.
    """

    name: str
    key: str
    use: str
    depth: int
    kind: str | None
    folder: Path | None
    is_repeated: bool


def lineage(folder: Path) -> list[Made]:
    """A finished stage and all that it is made of, by the manifests, each before its inputs."""
    return list(_walk(folder, read_manifest(folder), use="", depth=0, seen=set()))


def _walk(
    folder: Path, manifest: Mapping[str, Any], *, use: str, depth: int, seen: set[str]
) -> Iterator[Made]:
    key = manifest["key"]
    yield Made(
        name=_final_name(folder),
        key=key,
        use=use,
        depth=depth,
        kind=manifest["stage"],
        folder=folder,
        is_repeated=key in seen,
    )
    if key in seen:
        return
    seen.add(key)
    for name, entry in manifest["inputs"].items():
        path = Path(entry["path"])
        if (path / MANIFEST).is_file() and (path / CONFIG).is_file():
            yield from _walk(path, read_manifest(path), use=name, depth=depth + 1, seen=seen)
        else:
            yield Made(
                name=path.name,
                key=entry["key"],
                use=name,
                depth=depth + 1,
                kind=None,
                folder=None,
                is_repeated=False,
            )


def _final_name(folder: Path) -> str:
    """The name of a folder, also of one that is about to be renamed (see `marco.stages`)."""
    return folder.name.removeprefix(".").removesuffix(".part")


def told_config(folder: Path, kind: str) -> dict[str, Any]:
    """What may be told of a stage's config: no secrets, no paths, nothing of how it was run."""
    sections = allowed(order_of(folder)["config"], sections=SECTIONS.get(kind, ()))
    return _without_places(without_volatile(sections))


def _without_places(value: Any) -> Any:
    """The value with the last name of every absolute path in place of the path."""
    if isinstance(value, Mapping):
        return {name: _without_places(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    if isinstance(value, str) and os.path.isabs(value):
        return Path(value).name
    return value


def hub_datasets(made: Sequence[Made]) -> list[str]:
    """The hub's names of the sets that chains or pairs were taken from as they are published."""
    names = []
    for stage in made:
        if stage.folder is None or stage.kind is None or stage.is_repeated:
            continue
        config = told_config(stage.folder, stage.kind)
        published = config.get("published") or {}
        names += [config.get("dataset"), None if published.get("file") else published.get("hub")]
    return [name for name in dict.fromkeys(names) if name]
