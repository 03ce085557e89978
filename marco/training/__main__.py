"""One rank of a training stage: `python -m marco.training <folder of the stage>`, by a launcher."""

import sys
from pathlib import Path

from marco import work

if __name__ == "__main__":
    work.run(Path(sys.argv[1]))
