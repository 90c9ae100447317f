"""The door to the file system: paths are resolved beneath storage roots by descriptors, or refused.

Protocol drivers that keep files use it and nothing else to open one. The implementation is
`blockyard.node.storage.RootedStorage`, built by `app` alone; drivers only know this shape.
"""

from typing import Protocol


class Storage(Protocol):
    """Opens files beneath the configured roots. No symlink, `..` or race leads outside."""

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor for `path` (relative to the first root, or absolute beneath any root).

        `flags` as for os.open. Raises PathDenied, FileNotFound, FileExists, FileReadOnly or IoError.
        """
        ...

    def open_temporary(self, flags: int = 0) -> int:
        """A descriptor, for reading and writing, of a new file without a name. Raises NoSpace or IoError."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file. Raises PathDenied, FileNotFound or IoError."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the creation or renaming of `path` durable."""
        ...

    def relative_to_image(self, image: str, reference: str) -> str:
        """The path a header's `reference` means when it stands in `image`: beside it if relative."""
        ...

    def name_for(self, image: str, path: str, *, absolute: bool) -> str:
        """How the header of `image` can name `path`: what `relative_to_image` understands, and other programs do.

        Raises InvalidArgument if there is no relative name, beneath two different roots.
        """
        ...

    def is_same(self, first: str, second: str) -> bool:
        """Whether two paths name one place: the same root and components. Looks at text only."""
        ...

    def display(self, path: str) -> str:
        """The path as it may be shown to clients: relative to its root."""
        ...
