"""Look at trees in a browser, and annotate their chains.

python -m marco.viewer outputs/trees/NAME                      # serves a page on this machine only
python -m marco.viewer outputs/trees/NAME --export tree.html   # one tree, one file
python -m marco.viewer outputs/trees/NAME --export-annotations annotations.jsonl
"""

import argparse
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from marco.disk import replace_text
from marco.errors import UserError

PORT = 8765


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted, or export; 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        if options.export is not None:
            _write(options.export, _exported_tree(options.trees, options.tree))
        elif options.export_annotations is not None:
            _write(options.export_annotations, _exported_annotations(options))
        else:
            _serve(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _exported_tree(folder: Path, id: str | None) -> str:
    from marco.search.tree import read_trees
    from marco.viewer.export import tree_page

    for tree in read_trees(folder):
        if id in (None, tree.id):
            return tree_page(tree, folder=_folder(folder))
    raise UserError(f"{folder} holds no tree with the id {id}")


def _exported_annotations(options: argparse.Namespace) -> str:
    from marco.viewer.annotations import AnnotationStore

    path = _annotations(options)
    if not path.is_file():
        raise UserError(f"there are no annotations at {path}: nobody has made any yet")
    with closing(AnnotationStore(path)) as store:
        return "".join(store.export())


def _write(path: Path, text: str) -> None:
    try:
        replace_text(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    print(path)


def _annotations(options: argparse.Namespace) -> Path:
    from marco.viewer.index import beside

    return options.annotations or beside(_folder(options.trees), "annotations.sqlite")


def _folder(trees: Path) -> Path:
    return trees if trees.is_dir() else trees.parent


def _serve(options: argparse.Namespace) -> None:
    import uvicorn

    from marco.viewer.annotations import AnnotationStore
    from marco.viewer.index import Index
    from marco.viewer.pairs import Pairs, pairs_of_trees, students_of
    from marco.viewer.server import Library, create_app

    # The port before the index, which may take minutes.
    with _listen(options.port) as listening, ExitStack() as opened:
        port = listening.getsockname()[1]
        folder = _folder(options.trees)
        index = opened.enter_context(closing(Index.open(options.trees, path=options.index)))
        store = opened.enter_context(closing(AnnotationStore(_annotations(options))))
        dataset = options.pairs or pairs_of_trees(folder)
        pairs = Pairs(dataset, students_of(dataset)) if dataset else None
        library = Library(folder=folder, index=index, store=store, pairs=pairs)
        app = create_app(library, port=port)
        listening.listen()  # who opens the address now waits until the server has started
        print(f"http://127.0.0.1:{port}/#token={store.token}", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    """A socket on this machine's own address only."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise UserError(
            f"cannot listen on port {port} ({error}): take another with --port"
        ) from error
    return listening


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m marco.viewer",
        description="Look at trees of thought in a browser, and annotate their chains.",
    )
    parser.add_argument("trees", type=Path, help="the folder of trees that generate.py printed")
    parser.add_argument(
        "--port", type=int, default=PORT, help="on this machine only (%(default)s); 0: a free one"
    )
    parser.add_argument(
        "--pairs", type=Path, metavar="DATASET",
        help="a folder of preference pairs; default: the newest one made of these trees",
    )  # fmt: skip
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE",
        help="where annotations are kept; default: beside the folder of trees",
    )  # fmt: skip
    parser.add_argument(
        "--index", type=Path, metavar="FILE",
        help="where the index is kept; default: beside the folder of trees",
    )  # fmt: skip
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="write one tree as one HTML file, and end"
    )
    parser.add_argument("--tree", metavar="ID", help="which one to export; default: the first")
    parser.add_argument(
        "--export-annotations", type=Path, metavar="FILE",
        help="write all annotations as JSON Lines, for data.annotations=FILE, and end",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
