"""Tables of sweeps or of scores, a comparison, a dashboard, or how far everything is.

python -m marco.reporting outputs                # all tables of sweeps, anew from their rows
python -m marco.reporting outputs/table/NAME     # one of them
python -m marco.reporting outputs/scores [--out DIR]   # a table of the scores that are there
python -m marco.reporting status [OUTPUTS]
python -m marco.reporting compare A B [--json FILE]
python -m marco.reporting test_at A B [--json FILE]
python -m marco.reporting workspace TABLE [--dry-run]  # its dashboard in W&B
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from marco.errors import UserError
from marco.reporting import compare, status, test_at, workspace
from marco.reporting.figures import FigureName
from marco.reporting.formats import markdown
from marco.reporting.paper import load_paper
from marco.reporting.results import Result, collect, find_scores
from marco.reporting.table import RowSpec, make_table, write_table
from marco.sweep import SPEC, tabulate

COMMANDS = {"compare": compare, "test_at": test_at, "status": status, "workspace": workspace}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table as Markdown, or with a name of COMMANDS first that one; 2 for bad input.

    With `--out` a table is written in all its forms, with `--json` the figures of a command.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments and arguments[0] in COMMANDS:
            print(_command(*arguments), end="")
        else:
            for text in _tables(_parser().parse_args(arguments)):
                print(text, end="")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder of another's, a full disk
        print(f"error: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def _command(name: str, *arguments: str) -> str:
    module = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"python -m marco.reporting {name}", description=module.DESCRIPTION
    )
    module.add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures here")
    options = parser.parse_args(arguments)
    figures = module.figures(options)
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot write {options.json}: {reason}") from error
    return module.text(figures)


def _tables(options: argparse.Namespace) -> Iterator[str]:
    """The tables of sweeps in the folders, each written in its own place.

    Where there are none, or anything is asked of it, a table of all scores. UserError for a sweep's
    table that cannot be written, after all others.
    """
    folders = [str(folder) for folder in options.folders]
    is_asked = options != _parser().parse_args(folders)
    sweeps = _sweeps(options.folders, below=not is_asked)
    if not any(sweeps.values()):
        yield _table(options)
        return
    if is_asked:
        table = next(filter(None, sweeps.values()))[0]
        raise UserError(
            f"{table} is the table of a sweep, which is written in its own folder, as its "
            "experiment says: options are for scores (python -m marco.reporting outputs/scores ...)"
        )
    if without := [folder for folder, own in sweeps.items() if not own]:
        raise UserError(f"{without[0]} holds no table of a sweep, as the others do: name it alone")
    tables = dict.fromkeys(table for own in sweeps.values() for table in own)
    failed = []
    for table in tables:
        try:
            text = tabulate(table)
        except UserError as error:
            failed.append(str(error))
        else:
            yield text if len(tables) == 1 else f"{text}\ntable: {table}\n\n"
    if failed:
        raise UserError("; ".join(failed))


def _sweeps(folders: Sequence[Path], *, below: bool) -> dict[Path, list[Path]]:
    """The tables of sweeps that each folder is, or holds, in it or in its folder `table`."""
    patterns = [SPEC, *([f"*/{SPEC}", f"table/*/{SPEC}"] if below else [])]
    return {
        folder: [path.parent for pattern in patterns for path in sorted(folder.glob(pattern))]
        for folder in folders
    }


def _table(options: argparse.Namespace) -> str:
    folders = find_scores(options.folders)
    asked = {
        "name": options.name,
        "rows": _rows(collect(folders), options.rows, options.paper, options.paper_column),
        "folders": folders,
        "paper": options.paper,
        "paper_column": options.paper_column,
        "status": {},
    }
    if options.out is None:
        return markdown(make_table(**asked))
    if unknown := [name for name in options.figures if name not in get_args(FigureName)]:
        known = ", ".join(get_args(FigureName))
        raise UserError(f"--figures: unknown figure {unknown[0]!r}: expected some of {known}")
    figures = {"figures": options.figures, "swept": options.swept}
    return write_table(**asked, **figures, out=options.out)


def _rows(
    results: Sequence[Result], asked: Sequence[str] | None, paper: str | None, column: str
) -> list[RowSpec]:
    """The asked rows, or else all that are scored: the paper's in its order after the others."""
    titles: dict[str, str] = {}
    for result in results:
        titles.setdefault(result.row, result.title)
    if asked:
        return [RowSpec(recipe, titles.get(recipe, recipe)) for recipe in asked]
    known = load_paper(paper, column=column).rows if paper else {}
    order = [recipe for recipe in known if recipe in titles]
    order = [recipe for recipe in titles if recipe not in known] + order
    return [RowSpec(recipe, titles[recipe]) for recipe in order]


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m marco.reporting",
        description="Write the tables of sweeps anew, or print one table of scores. "
        "To compare two of them: python -m marco.reporting compare A B, or test_at A B",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="tables of sweeps or scores folders, or what holds them",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="also write table.md, .csv, .tex, .json, .png, .svg here",
    )
    parser.add_argument(
        "--figures",
        type=_names,
        default=[],
        metavar="A,B,...",
        help="with --out, also these as PNG and SVG: " + ", ".join(get_args(FigureName)),
    )
    parser.add_argument(
        "--swept",
        type=_names,
        default=[],
        metavar="KEY[,KEY]",
        help="of figure sweep: the config's key on the x-axis, and the one that tells curves apart",
    )
    parser.add_argument("--name", default="scores", help="title of the table (%(default)s)")
    parser.add_argument(
        "--rows",
        type=_names,
        metavar="A,B,...",
        help="recipes in the order of the table, scored or not; default: all that are scored",
    )
    parser.add_argument(
        "--paper", metavar="TABLE", help="the paper's table beside ours: step_by_step, alpha, ..."
    )
    parser.add_argument(
        "--paper-column",
        default="gsm8k",
        metavar="COLUMN",
        help="its benchmark (%(default)s): gsm8k, math, aime, planning, if_zh, if_en, if_other",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
