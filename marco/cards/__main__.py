"""The card of a student or dataset, and the hub.

python -m marco.cards outputs/student/<folder>                     # write its README.md anew
python -m marco.cards outputs/student/<folder> --push OWNER/NAME   # and upload it
python -m marco.cards outputs/student/<folder> --push OWNER        # with the datasets it learnt
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from marco.cards import card, hub
from marco.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the card of a folder, and push it if asked; 2 for what a person can mend."""
    options = _parser().parse_args(arguments)
    chosen = {"license": options.license}
    folder, private = options.folder.absolute(), not options.public
    try:
        if options.push is None:
            lines = [str(card.write(folder, **chosen))]
        elif "/" in options.push:
            lines = [hub.push(folder, options.push, private=private, **chosen)]
        else:
            lines = hub.push_with_datasets(folder, options.push, private=private, **chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m marco.cards",
        description="Write the card of a student or dataset anew, and push both to the hub. "
        "The token is that of the environment variable HF_TOKEN.",
    )
    parser.add_argument("folder", type=Path, help="of a finished student or dataset")
    parser.add_argument(
        "--push",
        metavar="OWNER[/NAME]",
        help="upload it there; without a name under that of its folder, with its datasets",
    )
    parser.add_argument("--public", action="store_true", help="for all to see; else private")
    parser.add_argument("--license", metavar="ID", help="of the hub's list, for the card's header")
    return parser


if __name__ == "__main__":
    sys.exit(main())
