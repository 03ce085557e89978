"""Which processors multiply bfloat16, and what configs make of it."""

from pathlib import Path

import pytest

from marco import config
from marco.processor import multiplies_bf16
from tests.test_config import checked

GENOA = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx\n\n"
ROME = "processor\t: 1\nmodel name\t: bf16 box\nflags\t\t: fpu fma avx2\n\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd svebf16 bf16\n\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (GENOA, True),
        (GENOA.replace("avx512_bf16 amx", "amx_bf16"), True),
        (GRAVITON, True),
        (ROME, False),  # its name is no flag
        (GENOA.replace("avx512_bf16", "avx512bw"), False),
        (GENOA + ROME, False),
        (GENOA + GENOA, True),
        ("", False),
    ],
)
def test_flags_of_every_core_are_read(tmp_path: Path, cpuinfo: str, expected: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo, encoding="utf-8")
    assert multiplies_bf16(file) is expected


def test_where_the_system_does_not_tell_there_is_none(tmp_path: Path) -> None:
    assert not multiplies_bf16(tmp_path / "none")


@pytest.mark.parametrize(
    ("has", "dtype", "precision"),
    [(True, "bfloat16", "bf16-master"), (False, "float32", "32-true")],
)
def test_defaults_go_by_the_processor(
    monkeypatch: pytest.MonkeyPatch, has: bool, dtype: str, precision: str
) -> None:
    monkeypatch.setattr(config, "multiplies_bf16", lambda: has)
    default = checked()
    assert default.engine.dtype == dtype
    assert default.trainer.of("preference").precision == precision
    paper = checked("size=paper")
    assert paper.engine.dtype == "bfloat16"
    assert paper.trainer.of("sft").precision == "bf16-master"
