"""Which tests are slow, by measurement: ``make test-fast`` leaves them out, and ``make slow-tests`` measures again.

As a plugin, it writes the CPU seconds of each test. As a script, it reads them, and prints the list ``slow.txt``.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

LIST: Final = Path(__file__).with_name("slow.txt")
# By this bound, the other tests take about a minute and a half on two cores.
CPU_SECONDS: Final = 0.7
HEADER: Final = f"# Tests that take more than {CPU_SECONDS} CPU seconds on average; `make slow-tests` writes this list."


def function_of(test_id: str) -> str:
    """Return a test's file and function, without its parameters."""
    return test_id.partition("[")[0]


def listed() -> frozenset[str]:
    """Return the functions in the list."""
    return frozenset(LIST.read_text().splitlines()[1:])


def slow_ones(measured: Sequence[tuple[str, float]]) -> list[str]:
    """Return the functions whose tests take more than the bound on average.

    :param measured: ids of tests with their CPU seconds.
    """
    by_function: Mapping[str, list[float]] = defaultdict(list)
    for test_id, seconds in measured:
        by_function[function_of(test_id)].append(seconds)
    return sorted(each for each, seconds in by_function.items() if sum(seconds) / len(seconds) > CPU_SECONDS)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file for the measurements."""
    parser.addoption("--cpu-seconds", metavar="FILE", help="append the CPU seconds of each test to this file")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure a test, with its fixtures and the processes that it waits for."""
    before = _cpu_seconds()
    result = yield
    if file := item.config.getoption("--cpu-seconds"):
        with Path(file).open("a") as lines:  # short lines of several workers do not mix
            lines.write(f"{_cpu_seconds() - before:.2f}\t{item.nodeid}\n")
    return result


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _main(path: str) -> None:
    lines = [line.split("\t", maxsplit=1) for line in Path(path).read_text().splitlines()]
    print("\n".join([HEADER, *slow_ones([(test_id, float(seconds)) for seconds, test_id in lines])]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
