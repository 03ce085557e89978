"""The viewer's server: JSON about the trees of one folder, annotations, and the page's files."""

import getpass
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Body, Depends, FastAPI, Header, HTTPException, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from marco.data.annotations import chain_digest
from marco.errors import UserError
from marco.search.replay import replay
from marco.search.tree import Tree
from marco.tasks.task import Task
from marco.viewer import assets, export
from marco.viewer.annotations import AnnotationStore, Changed
from marco.viewer.index import Chain, Filter, Index, Sort, distinct_chains, error_classes_config
from marco.viewer.pairs import MaskScope, Pairs
from marco.viewer.security import Guard
from marco.viewer.tree_data import search_config, task_of, tree_data, verdict_data

LONGEST_TEXT = 1_000_000  # characters of an edited chain
SCANNED = 5000  # chains that are looked at for the next one without a label, in one request
Name = Annotated[str, Field(min_length=1, max_length=100)]
Number = Annotated[int, Query(ge=-1, le=2**53)]


@dataclass
class Library:
    """What one server shows: the trees of a folder, their annotations, and pairs made of them."""

    folder: Path
    index: Index
    store: AnnotationStore
    pairs: Pairs | None

    @cached_property
    def config(self) -> Any:
        return search_config(self.folder)

    @cached_property
    def task(self) -> Task | None:
        return task_of(self.folder)

    @cached_property
    def error_classes(self) -> Any:
        return error_classes_config()

    def data(self, tree: Tree) -> dict[str, Any]:
        c = self.config["search"]["c"] if self.config else None
        return tree_data(tree, c=c)

    def steps(self, tree: Tree) -> list[dict[str, Any]]:
        """UserError where the search's journal or config does not lie beside the trees."""
        journals = sorted((self.folder / "journal").glob("worker-*.sqlite"))
        if self.config is None or not journals:
            raise UserError(
                "the steps of the search are not known: no journal/ and config.yaml lie beside "
                "trees.jsonl"
            )
        return replay(tree, self.config, journals)


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    request: Name
    annotator: Name
    tab: Name


class Save(Asked):
    """What an annotator says of a chain; without a label what was said is taken back."""

    n: Annotated[int, Field(ge=0, le=2**53)]
    node: Annotated[int, Field(ge=0, le=2**53)]
    label: Literal["correct", "wrong", "discard"] | None
    text: Annotated[str, Field(max_length=LONGEST_TEXT)] | None
    seen: int | None


class Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json.dumps(content).encode("ascii")  # lone surrogates, too, which are no UTF-8


def create_app(library: Library, *, port: int) -> FastAPI:
    """The application; it answers to 127.0.0.1 and localhost at this port only."""
    # The generated pages of documentation load scripts from elsewhere.
    app = FastAPI(default_response_class=Json, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, port=port)
    app.add_exception_handler(UserError, _told)
    app.add_exception_handler(Changed, _changed)
    _add_files(app)
    _add_trees(app, library)
    _add_pairs(app, library)
    _add_annotations(app, library)
    return app


async def _told(_: Request, error: Exception) -> Response:
    return Json({"detail": str(error)}, status_code=422)


async def _changed(_: Request, error: Exception) -> Response:
    assert isinstance(error, Changed)
    return Json({"detail": str(error), "state": error.state}, status_code=409)


def _add_files(app: FastAPI) -> None:
    """The page's files, by their names: no path of a request reaches the disk."""
    files = assets.files()

    def serve(name: str) -> Callable[[], Response]:
        return lambda: Response(files[name], media_type=assets.media_type(name))

    app.get("/")(serve("index.html"))
    for name in files:
        app.get(f"/static/{name}")(serve(name))


def _add_trees(app: FastAPI, library: Library) -> None:
    index = library.index

    def tree_of(n: int) -> Tree:
        if (tree := index.read(n)) is None:
            raise HTTPException(404, "there is no such tree")
        return tree

    @app.get("/api/session")
    def session() -> Any:
        return {
            "folder": library.folder.name,
            "annotator": _login(),
            "choices": index.choices(),
            "total": index.counts(Filter()),
            "has_pairs": library.pairs is not None,
        }

    @app.get("/api/trees")
    def trees(
        filter: Annotated[Filter, Depends()],
        sort: Sort = "n",
        descending: bool = False,
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Any:
        rows = index.page(filter, sort=sort, descending=descending, offset=offset, limit=limit)
        return {"counts": index.counts(filter), "rows": rows}

    @app.get("/api/trees/{n}")
    def tree(n: int) -> Any:
        return library.data(tree_of(n))

    @app.get("/api/trees/{n}/verdicts")
    def verdicts(n: int) -> Any:
        return verdict_data(tree_of(n), task=library.task, classes=library.error_classes)

    @app.get("/api/trees/{n}/steps")
    def steps(n: int) -> Any:
        return library.steps(tree_of(n))

    @app.get("/api/trees/{n}/page")
    def page(n: int) -> Response:
        found = tree_of(n)
        text = export.tree_page(found, folder=library.folder)
        named = f'attachment; filename="tree-{n}.html"'
        return Response(text, media_type="text/html", headers={"content-disposition": named})

    @app.get("/api/number")
    def number(id: str) -> Any:
        return {"n": index.number(id)}


def _add_pairs(app: FastAPI, library: Library) -> None:
    def pairs_of() -> Pairs:
        if library.pairs is None:
            raise HTTPException(404, "no pairs were made of these trees yet, or name them: --pairs")
        return library.pairs

    @app.get("/api/pairs")
    def pairs(
        tree: str = "",
        offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Any:
        total, rows = pairs_of().page(tree=tree, offset=offset, limit=limit)
        return {"total": total, "rows": rows, "dataset": pairs_of().folder.name}

    @app.get("/api/pairs/{row}")
    def pair(row: int, scope: MaskScope = "none") -> Any:
        if (found := pairs_of().read(row, scope)) is None:
            raise HTTPException(404, "there is no such pair")
        return found


def _add_annotations(app: FastAPI, library: Library) -> None:
    index, store = library.index, library.store
    token = store.token

    def writer(x_token: Annotated[str, Header()] = "") -> None:
        if not secrets.compare_digest(x_token.encode(), token.encode()):
            raise HTTPException(403, "open the whole address that the terminal shows, to write")

    @app.get("/api/annotations")
    def states(annotator: Name, tree: str) -> Any:
        return store.states(annotator, tree)

    @app.get("/api/annotations/progress")
    def progress(annotator: Name) -> Any:
        return store.counts(annotator) | {"chains": index.counts(Filter())["chains"]}

    @app.get("/api/annotations/next")
    def following(
        filter: Annotated[Filter, Depends()],
        annotator: Name,
        n: Number = -1,
        node: Number = -1,
        backwards: bool = False,
        todo: bool = False,
    ) -> Any:
        """The next chain, with `todo` the next without a label; null at the end.

        Where too many are labelled for one answer, `after` says where to go on.
        """
        done = store.labelled(annotator) if todo else set()
        ids: dict[int, str] = {}
        last = None
        found = index.chains(filter, after=Chain(n, node), backwards=backwards)
        for count, chain in enumerate(found):
            if not done:
                return {"chain": chain}
            if count == SCANNED:
                return {"chain": None, "after": last}
            if chain.n not in ids:
                ids = {chain.n: index.id(chain.n)}
            if (ids[chain.n], chain.node) not in done:
                return {"chain": chain}
            last = chain
        return {"chain": None, "after": None}

    @app.get("/api/annotations/export")
    def exported() -> Response:
        def lines() -> Iterator[str]:
            yield from store.export()

        named = 'attachment; filename="annotations.jsonl"'
        return StreamingResponse(
            lines(), media_type="application/jsonl", headers={"content-disposition": named}
        )

    @app.post("/api/annotations/save", dependencies=[Depends(writer)])
    def save(asked: Annotated[Save, Body()]) -> Any:
        if (tree := index.read(asked.n)) is None:
            raise HTTPException(404, "there is no such tree")
        chains = {leaf.id: chain_digest(text) for text, leaf, _ in distinct_chains(tree)}
        if asked.node not in chains:
            raise HTTPException(404, "no chain ends in this node")
        said = asked.model_dump(exclude={"n"})
        if asked.label is None:
            said["text"] = None
        return store.save(**said, tree=tree.id, chain=chains[asked.node])

    @app.post("/api/annotations/undo", dependencies=[Depends(writer)])
    def undo(asked: Annotated[Asked, Body()]) -> Any:
        state = store.undo(**asked.model_dump())
        return {"state": state, "n": index.number(state["tree"]) if state else None}


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in containers
        return "annotator"
