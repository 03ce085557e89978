"""Files that are written whole, and synced to the disk."""

import hashlib
import os
import socket
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave it as it was."""
    new = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.new")
    try:
        write_synced(new, content)
        new.replace(path)
        sync(path.parent)
    finally:
        new.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file whole, in UTF-8, or leave it as it was."""
    replace_file(path, text.encode())


def write_synced(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """64 hexadecimal digits of what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
