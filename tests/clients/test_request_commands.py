"""Commands about requests on their way: thresholds, copy on read."""

from tests.support.command import Cli
from tests.support.fake_services import FakeServices


async def test_a_write_threshold_is_set_and_shown_and_switched_off(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    assert "write threshold  9 GiB (9663676416 bytes)" in (await cli("node", "write-threshold", "disk", "9G")).out
    assert "write threshold" not in (await cli("node", "write-threshold", "disk", "0")).out


async def test_a_read_asks_for_copy_on_read_and_a_prefetch_tells_what_was_stored(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    assert (await cli("io", "read", "disk", "--copy-on-read", "--hex")).code == 0
    assert fakes.data.copies_on_read == 1
    assert (await cli("io", "prefetch", "disk", "--length", "1K")).out == "stored 1 KiB\n"
    assert (await cli("io", "prefetch", "disk", "-o", "json")).json == {
        "offset_bytes": "0",
        "zero_length_bytes": "4096",
    }
