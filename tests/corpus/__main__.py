"""`python -m tests.corpus FOLDER`: write every image into a folder of its own, and print what is expected of it."""

import sys
from pathlib import Path

from tests.corpus.catalogue import ENTRIES


def main(target: Path) -> None:
    for entry in ENTRIES:
        folder = target / entry.name
        folder.mkdir(parents=True)
        entry.make(folder)
        told = ", ".join(f"{name}: {answer.reason}" for name, answer in entry.answers.items())
        print(f"{entry.name}\t{entry.kind}\t{entry.source}\t{entry.format}\t{told or 'accepted'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
