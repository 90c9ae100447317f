"""Every test's ground: peers by marker."""

import pytest

from tests.support import peers


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("peer"):
        for name in marker.args:
            reason = peers.missing(name)
            if reason and peers.required():
                pytest.fail(reason, pytrace=False)
            if reason:
                pytest.skip(reason)
