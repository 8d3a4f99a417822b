"""`make search`: draw at random until the time is over, then print what was found as tests to paste.

A pytest plugin for a run of property tests and state machines. Each gets a share of the `--minutes`, a state
machine the larger one, and draws until its share is over. What fails is made smaller, for five minutes at
most, also where the time ends meanwhile; it ends its own share only.
"""

from __future__ import annotations

import faulthandler
import functools
import sys
import time
from collections.abc import Callable, Generator

import pytest
from hypothesis import settings
from hypothesis.errors import UnsatisfiedAssumption

from tests.search.drawing import Bound, InnerTest
from tests.search.pasting import as_test

MACHINE, PROPERTY = 20, 1
"""How the time is shared: a state machine takes seconds for an example, and has far more of them."""
GRACE = 600
"""Seconds after the end in which a run must have made small what it found; then something hangs."""


class TimeIsOver(KeyboardInterrupt):
    """A test's share of the time has ended, and nothing was found: the one way to make Hypothesis stop."""


class Share:
    """One test's share of the time, until `ends` on the monotonic clock."""

    def __init__(self, ends: float) -> None:
        self.examples = 0
        self._ends = ends
        self._failed = False

    def around(self, inner: InnerTest) -> InnerTest:
        """Count a test's examples, and end it with its share; what has failed is let be made smaller."""

        @functools.wraps(inner)
        def one(*args: object, **kwargs: object) -> None:
            if not self._failed and time.monotonic() >= self._ends:
                raise TimeIsOver
            self.examples += 1
            try:
                inner(*args, **kwargs)
            except UnsatisfiedAssumption:
                raise
            except (Exception, pytest.fail.Exception):
                self._failed = True
                raise

        return one

    def fill(self, test: Callable[..., None]) -> Callable[..., None]:
        """Run a test again and again, unless all that there is to draw has been drawn."""

        @functools.wraps(test)
        def again_and_again(*args: object, **kwargs: object) -> None:
            more = True
            while more:
                before = self.examples
                try:
                    test(*args, **kwargs)
                except TimeIsOver:
                    return
                more = self.examples - before >= settings().max_examples

        return again_and_again


class Search:
    """A process of a search."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._ends = 0.0
        self._waiting = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Take the quick ones first: what they leave of their time goes to those that come after."""
        items.sort(key=_weight)
        self._waiting = sum(map(_weight, items))
        self._ends = time.monotonic() + self._seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Draw until the test's share of the time is over."""
        now, weight = time.monotonic(), _weight(pyfuncitem)
        share = Share(now + (self._ends - now) * weight / self._waiting)
        self._waiting -= weight
        test = pyfuncitem.obj
        inner = test.hypothesis.inner_test if _is_property(pyfuncitem) else None
        if inner is not None:
            test.hypothesis.inner_test = share.around(inner)
        Bound.around, pyfuncitem.obj = share.around, share.fill(test)
        try:
            return (yield)
        finally:
            Bound.around, pyfuncitem.obj = None, test
            if inner is not None:
                test.hypothesis.inner_test = inner
            pyfuncitem.user_properties.append(("examples", share.examples))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Lay what failed beside the report, which goes from whichever process to the one that prints."""
        if call.when == "call" and call.excinfo is not None and isinstance(item, pytest.Function):
            item.user_properties.append(("found", as_test(item, call.excinfo.value)))
        return (yield)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--minutes`."""
    parser.addoption("--minutes", type=float, default=10.0, help="how long to search, without shrinking")


def pytest_configure(config: pytest.Config) -> None:
    """Draw as a search does, and end even where a test hangs."""
    settings.load_profile("search")
    minutes = config.getoption("minutes")
    config.pluginmanager.register(Search(minutes))
    # What hangs names itself by its traceback, and ends.
    faulthandler.dump_traceback_later(60 * minutes + GRACE, exit=True, file=sys.__stderr__ or sys.stderr)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Print at the very end what was found."""
    yield
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
    ]
    tried = sum(int(_noted(report, "examples") or 0) for report in reports)
    found = [(report, text) for report in reports if (text := _noted(report, "found"))]
    terminalreporter.section(f"search: {len(found)} found", red=bool(found), green=not found, bold=True)
    for report, text in found:
        terminalreporter.write_line(
            f"\n# Found by {report.nodeid}. Paste into {report.location[0]}:\n{text}\n"
        )
    tests = len({report.nodeid for report in reports})
    terminalreporter.write_line(
        f"{tried} examples of {tests} tests in {config.getoption('minutes'):g} minutes, {len(found)} failed"
    )


def _noted(report: pytest.TestReport, name: str) -> str:
    return str(dict(report.user_properties).get(name, ""))


def _is_property(item: pytest.Item) -> bool:
    return item.get_closest_marker("hypothesis") is not None


def _weight(item: pytest.Item) -> int:
    return MACHINE if item.get_closest_marker("machine") else PROPERTY
