"""What a name says by its text alone, as QEMU's block.c reads it."""

import pytest

from blockyard.node.core.filenames import is_windows_drive, protocol_of


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("disk.raw", ""),
        ("dir/a:b", ""),
        ("./a:b", ""),
        ("/abs/a:b", ""),
        ("nbd://host/name", "nbd"),
        ("nbd:unix:/run/sock", "nbd"),
        ("json:{}", "json"),
        ("file:disk", "file"),
        ("fat:rw:dir", "fat"),
        ("a:b", ""),
        ("ab:c", "ab"),
        ("c:", ""),
        ("C:\\images\\disk.vhd", ""),
        ("c:/images/disk.vhd", ""),
        ("\\\\.\\d:", ""),
        ("//./d:", ""),
        (":x", ""),
        ("a b:c", ""),
        ("", ""),
    ],
)
def test_a_protocol_is_what_stands_before_a_colon_that_no_slash_precedes(name: str, protocol: str):
    assert protocol_of(name) == protocol


@pytest.mark.parametrize(
    ("name", "drive"),
    [("c:", True), ("\\\\.\\d:", True), ("//./cdrom", True), ("c:\\x", False), ("cc:", False), ("1:", False)],
)
def test_a_drive_is_a_letter_or_a_device_name(name: str, drive: bool):
    assert is_windows_drive(name) is drive
