"""The directory whose files are secrets: systemd's credentials, a mounted Kubernetes secret, a directory of root.

What it holds is the operator's, so links inside of it are followed (Kubernetes mounts its secrets so), as long as
what they lead to lies inside as well.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NoReturn

from blockyard.base.errors import FileNotFound, InvalidArgument, IoError, PathDenied

CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""Where systemd puts LoadCredential= (systemd.exec(5))."""


class SecretDirectory:
    """Fulfils `graph.secrets.SecretFiles`. An empty path: what systemd gives, or nothing."""

    def __init__(self, path: str) -> None:
        path = path or os.environ.get(CREDENTIALS_VARIABLE, "")
        self._root: Path | None = None
        if path:
            self._root = Path(path).absolute()
            if not self._root.is_dir():
                raise InvalidArgument("secret_directory", "a directory", path)

    def read(self, path: str, limit: int) -> bytes:
        """See `SecretFiles.read`."""
        place = self._located(path)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    _deny(path, "it is no regular file")
                return os.read(descriptor, limit + 1)
            finally:
                os.close(descriptor)
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.ENOTDIR):
                raise FileNotFound(path) from problem
            raise IoError(path, "open", problem.errno or errno.EIO, os.strerror(problem.errno or 5)) from problem

    def _located(self, path: str) -> Path:
        if self._root is None:
            _deny(path, "the service has no secret directory (option secret_directory)")
        if not path or path.startswith("/") or "\0" in path or ".." in path.split("/") or len(path) > 1024:
            _deny(path[:256], "it must be relative, without '..'")
        root = Path(os.path.realpath(self._root))
        place = Path(os.path.realpath(root / path))
        if not place.is_relative_to(root):
            _deny(path, "it leads outside the secret directory")
        return place


def _deny(path: str, why: str) -> NoReturn:
    raise PathDenied(path, why)
