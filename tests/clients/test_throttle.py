"""`blockyard throttle` and the words of limits, against a real node service."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockyard.cli import limits, units
from blockyard.cli.exits import Exit
from blockyard.client.definitions import memory, throttle
from blockyard.client.throttling import NO_LIMIT, limit
from tests.support.command import Cli
from tests.support.node_calls import NodeHouse, node_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[NodeHouse]:
    async with node_house(tmp_path) as made:
        yield made


@pytest.fixture
def cli(house: NodeHouse, capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    return Cli(house.client.address, capsysbinary)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200", limit(200)),
        ("5k", limit(5000)),
        ("1.5k:2k", limit(1500, max=2000)),
        ("10:20:30s", limit(10, max=20, burst_length=30)),
        ("10:20:1m", limit(10, max=20, burst_length=60)),
        ("none", NO_LIMIT),
        ("0", limit(0)),
    ],
)
def test_a_limit_is_a_rate_with_a_burst_if_wanted(text: str, expected):
    assert limits.parse(text, units.parse_count) == expected


def test_rates_of_bytes_are_binary_as_sizes_are():
    assert limits.parse("10M:1G:5s", units.parse_size) == limit(10 << 20, max=1 << 30, burst_length=5)


@pytest.mark.parametrize("text", ["", ":", "1:", "1:2:", "1:2:3:4", "-1", "1:2:x", "1:2:0", "fast", "1T", "0.5"])
def test_what_is_no_limit_is_refused(text: str):
    with pytest.raises(ValueError, match=r"."):
        limits.parse(text, units.parse_count)


def test_a_limit_in_words():
    assert limits.words("iops_read", limit(1234)) == "1,234/s"
    assert limits.words("bps_total", limit(1 << 20, max=1 << 30, burst_length=2.5)) == (
        "1 MiB/s, bursts of 1 GiB/s for 2.5 s"
    )
    assert limits.words("bps_total", NO_LIMIT) == ""


async def test_a_group_is_made_shown_changed_listed_and_deleted(cli: Cli, house: NodeHouse):
    ran = await cli("throttle", "create", "gold", "--iops-total", "5k:20k:30s", "--bps-read", "200M")
    assert ran.out.splitlines()[:3] == [
        "group       gold",
        "iops total  5,000/s, bursts of 20,000/s for 30 s",
        "bps read    200 MiB/s",
    ]
    await house.client.nodes.open(throttle(memory(1 << 20), "gold", node_name="disk"))
    ran = await cli("throttle", "update", "gold", "--iops-total", "none", "--iops-write", "7", "--iops-size", "64K")
    assert (
        "iops write  7/s\n" in ran.out
        and "bps read    200 MiB/s\n" in ran.out
        and "iops size   64 KiB\n" in ran.out
    )
    await cli("throttle", "create", "plain")
    ran = await cli("throttle", "list")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["GROUP", "IOPS", "BYTES", "WAITING", "HELD", "UP", "NODES"],
        ["gold", "write", "7/s", "read", "200", "MiB/s", "0", "0", "disk"],
        ["plain", "-", "-", "0", "0", "-"],
    ]
    ran = await cli("throttle", "delete", "plain")
    assert (ran.code, ran.out) == (0, "deleted throttle group plain\n")
    ran = await cli("throttle", "show", "gold", "-o", "json")
    assert ran.json["iops_write"]["avg"] == "7" and ran.json["node_names"] == ["disk"]


async def test_errors_have_the_exit_codes_of_their_kinds(cli: Cli, house: NodeHouse):
    assert (await cli("throttle", "show", "nothing")).code == Exit.NOT_FOUND
    assert (await cli("throttle", "delete", "nothing")).code == Exit.NOT_FOUND
    assert (await cli("throttle", "delete", "nothing", "--allow-missing")).code == 0
    await cli("throttle", "create", "g")
    await house.client.nodes.open(throttle(memory(1 << 20), "g", node_name="disk"))
    ran = await cli("throttle", "delete", "g")
    assert ran.code == Exit.PRECONDITION and "node/disk" in ran.err
    ran = await cli("throttle", "create", "h", "--iops-total", "1", "--iops-read", "1")
    assert ran.code == Exit.USAGE and "iops_total.avg" in ran.err
    ran = await cli("throttle", "create", "h", "--bps-read", "quick")
    assert ran.code == Exit.USAGE


async def test_a_throttle_node_is_opened_by_the_short_form(cli: Cli, house: NodeHouse):
    await cli("throttle", "create", "gold", "--iops-total", "5k")
    await cli("node", "open", "--format", "memory", "--set", "size=1M", "--name", "disk")
    ran = await cli(
        *("node", "open", "--format", "throttle", "--set", "file=disk", "--set", "throttle_group=gold"),
        *("--name", "limited"),
    )
    assert ran.code == 0, ran.err
    ran = await cli("node", "show", "limited")
    assert "throttle group  gold\n" in ran.out


async def test_a_format_without_its_file_is_refused(cli: Cli):
    assert (await cli("node", "open", "--format", "throttle")).code == Exit.USAGE
    assert (await cli("node", "open", "--format", "file")).code == Exit.USAGE
