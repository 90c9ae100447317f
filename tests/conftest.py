"""Every test's ground: peers by marker."""

from collections.abc import Generator

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every peer is required a skip is a failure: nothing may go untested unseen."""
    report = yield
    if report.skipped and peers.required():
        report.outcome = "failed"
        report.longrepr = f"skipped where everything must run: {call.excinfo.value if call.excinfo else ''}"
    return report
