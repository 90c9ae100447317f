"""Generate `protos/python` from `protos/blockyard`, or say where it is stale (`--check`).

The proto path equals the Python path, so protoc's own imports are right and nothing is rewritten.
"""

import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
COMMITTED = ROOT / "python"


def generate(into: Path) -> None:
    """Write the generated modules of every proto file beneath `into`. Raises RuntimeError if protoc fails."""
    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "blockyard").rglob("*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    outputs = [f"--{kind}_out={into}" for kind in ("python", "pyi", "grpc_python")]
    code = protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *outputs, *sources])
    if code:
        raise RuntimeError(f"protoc ended with {code}")


def stale() -> list[str]:
    """Files that differ from what would be generated now."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        names = {path.relative_to(base) for base in (fresh, COMMITTED) for path in base.rglob("*_pb2*.py*")}
        names = {name for name in names if "__pycache__" not in name.parts}
        return sorted(str(name) for name in names if _content(fresh / name) != _content(COMMITTED / name))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main() -> int:
    if "--check" in sys.argv[1:]:
        differing = stale()
        for name in differing:
            sys.stderr.write(f"stale: {name}; run `make protos`\n")
        return bool(differing)
    COMMITTED.mkdir(exist_ok=True)
    generate(COMMITTED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
