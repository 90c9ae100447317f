"""LUKS for tests: made and read by qemu-img and cryptsetup, with passphrases out of files."""

import json
from pathlib import Path
from typing import Any

from tests.support import peers

PASSPHRASE = b"open sesame"


def qemu_luks(*command: str | Path, secrets: dict[str, bytes] | None = None) -> str:
    """Run qemu-img with secrets (by default `s`, the passphrase).

    It measures how fast it hashes before it makes a key slot. On kernels that count CPU time in ticks that
    measures 0 now and then, and it gives up (qcrypto_pbkdf2_count_iters): it is asked again, for that reason only.
    """
    objects: list[str | Path] = []
    for name, value in (secrets or {"s": PASSPHRASE}).items():
        objects += ["--object", f"secret,id={name},data={value.decode()}"]
    verb, *rest = command
    for _ in range(50):
        done = peers.run("qemu-img", verb, *objects, *rest, check=False)
        if done.returncode == 0:
            return done.stdout
        assert "Unable to get accurate CPU usage" in done.stderr, done.stderr
    raise AssertionError("qemu-img measured no CPU time 50 times in a row")


def qemu_create_luks(path: Path, size: int, *options: str) -> None:
    wanted = ",".join(("key-secret=s", "iter-time=10", *options))
    qemu_luks("create", "-q", "-f", "luks", "-o", wanted, path, str(size))


def qemu_create_qcow2_luks(
    path: Path, size: int | None, *options: str, backing: tuple[str, str] | None = None
) -> None:
    """As LUKS inside of qcow2."""
    wanted = ",".join(("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", *options))
    below = ["-b", backing[0], "-F", backing[1]] if backing else []
    qemu_luks("create", "-q", "-f", "qcow2", "-o", wanted, *below, path, *([str(size)] if size is not None else []))


def image_options(path: Path, driver: str = "luks", secret: str = "s") -> str:
    """What opens it, for --image-opts."""
    key = (
        f"encrypt.format={'aes' if driver == 'aes' else 'luks'},encrypt.key-secret"
        if driver != "luks"
        else "key-secret"
    )
    name = "luks" if driver == "luks" else "qcow2"
    return f"driver={name},file.filename={path},{key}={secret}"


def qemu_luks_content(path: Path, driver: str = "luks", **secrets: bytes) -> bytes:
    """The plaintext, as QEMU reads it."""
    raw = path.with_suffix(".converted")
    name = next(iter(secrets), "s")
    qemu_luks(
        "convert", "--image-opts", "-O", "raw", image_options(path, driver, name), raw, secrets=secrets or None
    )
    try:
        return raw.read_bytes()
    finally:
        raw.unlink()


def qemu_luks_info(path: Path, driver: str = "luks") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        qemu_luks("info", "-U", "--output=json", "--image-opts", image_options(path, driver))
    )
    return found


def qemu_luks_write(path: Path, *commands: str, driver: str = "luks") -> None:
    """Write with qemu-io."""
    peers.run(
        "qemu-io", "--object", f"secret,id=s,data={PASSPHRASE.decode()}",
        *(part for command in commands for part in ("-c", command)), "--image-opts", image_options(path, driver),
    )  # fmt: skip


def assert_luks_clean(path: Path, driver: str = "qcow2") -> None:
    """QEMU finds nothing wrong with an encrypted qcow2 image."""
    secret = f"secret,id=s,data={PASSPHRASE.decode()}"
    peers.run("qemu-img", "check", "-U", "--object", secret, "--image-opts", image_options(path, driver))


def cryptsetup(*command: str | Path, key: bytes = PASSPHRASE, folder: Path) -> str:
    """Run cryptsetup with a key file."""
    keyfile = folder / "cryptsetup.key"
    keyfile.write_bytes(key)
    return peers.run("cryptsetup", "--batch-mode", *command, "--key-file", keyfile).stdout


def cryptsetup_opens(path: Path, key: bytes = PASSPHRASE, *options: str) -> bool:
    """Whether a key slot opens with the key."""
    keyfile = path.with_suffix(".key")
    keyfile.write_bytes(key)
    tried = peers.run("cryptsetup", "open", "--test-passphrase", *options, "--key-file", keyfile, path, check=False)
    assert tried.returncode in (0, 2), tried.stderr
    return tried.returncode == 0
