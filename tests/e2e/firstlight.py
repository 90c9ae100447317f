"""`make run`: Blockyard's main job on a real image, with every byte accounted for.

    python -m tests.e2e.firstlight [--image PATH] [--size 512M] [--quiet]

Starts a daemon on a private socket with a temporary storage root, takes the image (read-only) or makes one of real
files, and runs the story (`tests.e2e.story`). Ends with 0 only if everything is identical.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from blockyard.base.errors import BlockError
from blockyard.cli import units
from blockyard.cli.options import Globals
from blockyard.client import Client
from tests.e2e import originals
from tests.e2e.collector import collecting
from tests.e2e.guest import GuestProblem
from tests.e2e.story import Story
from tests.support.daemon import daemon


async def run(image: Path | None, size: int, options: Globals) -> bool:
    """Run the story once; whether all was identical."""
    began = time.perf_counter()
    data = image.stat().st_size if image else size
    with tempfile.TemporaryDirectory(
        prefix="blockyard-", dir=originals.work_place(originals.room_for(data))
    ) as work:
        directory = Path(work)
        original = image or directory / "original" / "original.raw"
        if image is None:
            original.parent.mkdir()
            total, files = originals.build(original, size)
            _say(options, f"made a disk of {units.size(total)} from {files} real files")
        roots = originals.folders_of(original)
        async with (
            collecting() as collector,
            daemon(directory, roots=roots, environment=collector.environment) as running,
            Client.connect(running.address) as client,
        ):
            story = Story(client, running, original, originals.probe_format(original), options)
            try:
                await story.run()
            except Exception:
                sys.stderr.write(running.log.read_text()[-4000:])
                raise
            finally:
                if story.guest is not None:
                    await story.guest.abandon()
        assert story.guest is not None
        story.report.print(story.guest, collector)
    seconds = time.perf_counter() - began
    verdict = "All identical" if story.report.identical else "NOT identical"
    print(f"\n{verdict}, after {seconds:.1f} s; everything temporary is removed")
    return story.report.identical


def _say(options: Globals, text: str) -> None:
    if not options.quiet:
        print(text, flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="firstlight", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image", type=Path, help="your own image, raw or qcow2; it is only read")
    parser.add_argument("--size", default="512M", help="bytes of the disk that is made without --image")
    parser.add_argument("--quiet", action="store_true", help="the report only")
    given = parser.parse_args()
    try:
        image = given.image.resolve() if given.image else None
        if image and not image.is_file():
            raise originals.NotEnough(f"{given.image} is no file")
        return 0 if asyncio.run(run(image, units.parse_size(given.size), Globals(quiet=given.quiet))) else 1
    except BlockError as error:
        print(f"firstlight: {error}\n  {error.hint}", file=sys.stderr)
    except (GuestProblem, originals.NotEnough, OSError, ValueError) as error:
        print(f"firstlight: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("firstlight: interrupted; everything temporary is removed", file=sys.stderr)
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
