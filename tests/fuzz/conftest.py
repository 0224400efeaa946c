"""Fuzzing: a short run in `make test`, a long one in `make fuzz`, which says at its end what was tried."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fuzz_attempts import Attempts

KEY = "fuzzed"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Otherwise the warning that an example is too large to be printed would hide what it failed by.
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("ignore:Generating overly large repr"))


@pytest.fixture
def attempt(request: pytest.FixtureRequest) -> Iterator[Attempts]:
    """Tries inputs; one count for all the examples of a test."""
    attempts = Attempts()
    yield attempts
    if attempts.tried > 1:  # strategies that only one kind of answer follows try nothing
        assert attempts.accepted, "no input was accepted"
        assert attempts.refused, "no input was refused"
    counts = (attempts.tried, attempts.accepted, attempts.refused)
    request.node.user_properties.append((KEY, counts))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = {
        report.nodeid: counts
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "teardown"
        for name, counts in report.user_properties
        if name == KEY
    }
    if not rows:
        return
    terminalreporter.section("inputs tried")
    terminalreporter.write_line(f"{'tried':>9}{'accepted':>10}{'refused':>9}")
    for nodeid, (tried, accepted, refused) in sorted(rows.items()):
        name = nodeid.rpartition("::")[2]
        terminalreporter.write_line(f"{tried:>9,}{accepted:>10,}{refused:>9,}  {name}")
