"""Sector ciphers against the cipher library's own modes, a context for each sector, and a known vector."""

import hashlib
import os
import threading

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from blockyard.base.errors import UnsupportedFeature
from blockyard.node.formats.luks.cipher import CipherSpec

NUMBER = (1 << 33) + 5
MODES = {"xts": modes.XTS, "cbc": modes.CBC, "ctr": modes.CTR}
SPECS = [
    ("xts-plain64", 32), ("xts-plain64", 48), ("xts-plain64", 64), ("xts-plain", 64), ("xts-essiv:sha256", 64),
    ("cbc-plain64", 16), ("cbc-plain", 24), ("cbc-essiv:sha256", 32), ("ctr-plain64", 32), ("ctr-essiv:sha256", 16),
    ("ecb", 32),
]  # fmt: skip


def vector(spec: CipherSpec, key: bytes, number: int) -> bytes:
    if spec.generator == "plain":
        number &= 0xFFFFFFFF
    plain = number.to_bytes(16, "little")
    if spec.generator != "essiv":
        return plain
    digest = hashlib.new(spec.generator_hash, key).digest()
    return Cipher(algorithms.AES(digest), modes.ECB()).encryptor().update(plain)


def doubled(tweak: bytes) -> bytes:
    """A tweak times x (IEEE 1619)."""
    number = int.from_bytes(tweak, "little") << 1
    return (number if number < 1 << 128 else (number ^ 0x87) & ((1 << 128) - 1)).to_bytes(16, "little")


def xts_by_blocks(key: bytes, tweak: bytes, data: bytes) -> bytes:
    """AES-XTS as the standard writes it, also for the key of 384 bits that the library does not take."""
    block, other = (
        Cipher(algorithms.AES(half), modes.ECB()) for half in (key[: len(key) // 2], key[len(key) // 2 :])
    )
    tweak = other.encryptor().update(tweak)
    result = b""
    for at in range(0, len(data), 16):
        mixed = bytes(a ^ b for a, b in zip(data[at : at + 16], tweak, strict=True))
        result += bytes(a ^ b for a, b in zip(block.encryptor().update(mixed), tweak, strict=True))
        tweak = doubled(tweak)
    return result


def by_contexts(spec: CipherSpec, key: bytes, data: bytes, sector_size: int) -> bytes:
    result = b""
    for at in range(0, len(data), sector_size):
        iv, sector = vector(spec, key, NUMBER + at // 512), data[at : at + sector_size]
        if len(key) == 48:
            result += xts_by_blocks(key, iv, sector)
            continue
        mode = modes.ECB() if spec.mode == "ecb" else MODES[spec.mode](iv)
        result += Cipher(algorithms.AES(key), mode).encryptor().update(sector)
    return result


@pytest.mark.parametrize("sector_size", [512, 1024, 4096])
@pytest.mark.parametrize(("name", "size"), SPECS)
def test_whole_requests_are_what_single_sectors_are(name: str, size: int, sector_size: int):
    spec, key = CipherSpec.parse("aes", name, "image"), os.urandom(size)
    if size == 48 and sector_size != 512:
        with pytest.raises(UnsupportedFeature):
            spec.make(key, sector_size, "image")
        return
    cipher = spec.make(key, sector_size, "image")
    for count in (1, 2, 8, 16, 17, 31, 64, 128, 129, 300) if size != 48 else (1, 9):
        data = os.urandom(count * sector_size)
        made = cipher.encrypt(NUMBER, data)
        assert made == by_contexts(spec, key, data, sector_size), count
        cipher.decrypt(NUMBER, memoryview(made))
        assert made == data, count


def test_xts_gives_a_vector_of_the_standard():
    """IEEE 1619-2007, vector 2: AES-128, sector 0x3333333333, 32 bytes of 0x44 (here: the first of a sector)."""
    key = b"\x11" * 16 + b"\x22" * 16
    cipher = CipherSpec.parse("aes", "xts-plain64", "image").make(key, 512, "image")
    made = cipher.encrypt(0x3333333333, b"\x44" * 512)
    assert made[:32].hex() == "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"


def test_a_buffer_may_begin_anywhere_and_be_read_only():
    cipher = CipherSpec.parse("aes", "xts-plain64", "image").make(bytes(range(64)), 512, "image")
    data = os.urandom(4096 + 3)
    made = cipher.encrypt(7, memoryview(data)[3:])
    odd = bytearray(3) + made
    cipher.decrypt(7, memoryview(odd)[3:])
    assert odd[3:] == data[3:]


def test_threads_use_one_cipher_at_once():
    cipher = CipherSpec.parse("aes", "xts-plain64", "image").make(bytes(range(64)), 512, "image")
    data = [os.urandom(256 * 1024) for _ in range(4)]
    wanted = [bytes(cipher.encrypt(9, item)) for item in data]
    wrong: list[int] = []

    def work(at: int) -> None:
        wrong.extend(at for _ in range(20) if cipher.encrypt(9, data[at]) != wanted[at])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("algorithm", "mode"),
    [("serpent", "xts-plain64"), ("aes", "xts"), ("aes", "xts-benbi"), ("aes", "gcm-plain64"), ("aes", "cbc-essiv"),
     ("aes", "cbc-essiv:nohash"), ("aes", "cbc-essiv:sha512"), ("", ""), ("aes", "xts-plain64:sha256")],
)  # fmt: skip
def test_a_cipher_that_we_lack_is_named(algorithm: str, mode: str):
    with pytest.raises(UnsupportedFeature, match=r"cipher"):
        CipherSpec.parse(algorithm, mode, "image")
