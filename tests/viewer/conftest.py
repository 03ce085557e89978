from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from marco.search.pattern import Kinds, Pattern
from marco.search.tree import Tree
from marco.viewer.annotations import AnnotationStore
from marco.viewer.index import Index
from marco.viewer.pairs import Pairs, pairs_of_trees, students_of
from marco.viewer.server import Library, create_app

from .folder import grow

PORT = 8765


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "trees" / "test-a-12345678"


@pytest.fixture
def trees(folder: Path, patterns: Mapping[str, Pattern], kinds: Kinds) -> list[Tree]:
    return grow(folder, patterns["a"], kinds)


@pytest.fixture
def index(folder: Path, trees: list[Tree]) -> Iterator[Index]:
    index = Index.open(folder)
    yield index
    index.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AnnotationStore]:
    store = AnnotationStore(tmp_path / "annotations.sqlite")
    yield store
    store.close()


@pytest.fixture
def client(folder: Path, index: Index, store: AnnotationStore) -> Iterator[TestClient]:
    dataset = pairs_of_trees(folder)
    pairs = Pairs(dataset, students_of(dataset)) if dataset else None
    app = create_app(Library(folder=folder, index=index, store=store, pairs=pairs), port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        yield client
