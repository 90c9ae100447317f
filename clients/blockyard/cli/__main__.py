"""`blockyard`: the entry point, kept bare so that it starts fast."""

import gc
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    # Nothing that is imported is garbage; a command that works turns the search on again (`running`).
    gc.disable()
    from blockyard.cli.app import build
    from blockyard.cli.running import run

    tokens = sys.argv[1:]
    if tokens[:1] == ["--install-completion"]:
        tokens = ["completion", "install", *tokens[1:]]
    sys.exit(run(build(), tokens))


if __name__ == "__main__":
    main()
