"""Commands about requests on their way: thresholds, copy on read."""

from tests.support.command import Cli
from tests.support.fake_services import FakeServices


async def test_a_write_threshold_is_set_and_shown_and_switched_off(cli: Cli, fakes: FakeServices):
    fakes.graph.add("disk", 4096)
    assert "write threshold  9 GiB (9663676416 bytes)" in (await cli("node", "write-threshold", "disk", "9G")).out
    assert "write threshold" not in (await cli("node", "write-threshold", "disk", "0")).out
