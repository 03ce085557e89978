"""A file is written whole, or left as it was."""

import pytest

from marco.disk import replace_file, replace_text


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file"
    replace_text(path, "eins")
    replace_text(path, "zwölf")
    assert path.read_bytes() == b"zw\xc3\xb6lf"
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["marco.disk.os.fsync", "marco.disk.Path.replace"])
def test_a_disk_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch, place):
    path = tmp_path / "file"
    replace_text(path, "old")

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, fails)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new, and longer")
    monkeypatch.undo()
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["file"]
