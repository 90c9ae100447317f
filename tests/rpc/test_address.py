"""Addresses: what is one, what is not, and what gRPC is given."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.base.errors import InvalidArgument
from blockyard.rpc.address import Address


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("unix:/run/b.sock", "unix:/run/b.sock"),
        ("unix:///run/b.sock", "unix:/run/b.sock"),
        ("localhost:7000", "localhost:7000"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("[::1]:7000", "[::1]:7000"),
    ],
)
def test_an_address_is_written_as_grpc_takes_it(text, target) -> None:
    address = Address.parse(text)
    assert (address.target, address.bind, str(address)) == (target,) * 3
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "localhost", ":7000", "[]:7000", "::1:7000", "host:70000", "host:-1", "host:7x", "host:\u0663"),
        *("unix:relative.sock", "unix:", "unix://host/path", "http://host:80", "unix:/" + "x" * 107, "unix:/a\0b"),
    ],
)
def test_anything_else_is_refused_with_the_field_named(text) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Address.parse(text)
    assert caught.value.bad_field == "address"


@given(st.text())
def test_no_text_breaks_the_parser(text) -> None:
    with contextlib.suppress(InvalidArgument):
        assert Address.parse(str(Address.parse(text))) == Address.parse(text)
