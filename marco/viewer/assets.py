"""The files of the page, as `npm run build` in `frontend/` leaves them in `static/`.

They are committed, so that neither an installation nor a user needs Node; `build.json` holds the
digest of what they were built from.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".woff2": "font/woff2",
    ".svg": "image/svg+xml",
}


@cache
def files() -> dict[str, bytes]:
    """By name, all that the server hands out."""
    found = sorted(path for path in STATIC.iterdir() if path.suffix in MEDIA_TYPES)
    return {path.name: path.read_bytes() for path in found}


def media_type(name: str) -> str:
    return MEDIA_TYPES[Path(name).suffix]


def built_from() -> str:
    """The digest of the sources that the files were built from."""
    return json.loads((STATIC / "build.json").read_text(encoding="utf-8"))["sources"]


def digest_of(frontend: Path) -> str:
    """The digest of the sources: every file of the page, and the lock of its packages.

    `frontend/build.mjs` takes the same one.
    """
    own = [frontend / name for name in ("package.json", "package-lock.json", "build.mjs")]
    digest = hashlib.sha256()
    for path in [*own, *sorted((frontend / "src").iterdir(), key=lambda path: path.name)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
