"""What the load tools measure, and where they run. Needs nothing but Python."""

import importlib.machinery
import importlib.util
import math
import os
import pathlib
import re
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def token(number):
    """The bearer token of a recipient."""
    return f"dss_load-test-recipient-number-{number:03}"


def memory(pid):
    """The resident memory of a process in MB: (now, the highest so far)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return tuple(int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M)[1]) / 1000 for name in ("VmRSS", "VmHWM"))


def processor_seconds(pid):
    """The processor time that a process has used, with that of threads that have ended."""
    # Linux has a clock for each process: this is `clock_getcpuclockid` of its C library.
    return time.clock_gettime(~pid << 3 | 2)


def percentile(values, percent):
    """The smallest of the values that so many percent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def slope(points):
    """By how much y grows with x, by least squares."""
    count = len(points)
    x, y = sum(point[0] for point in points) / count, sum(point[1] for point in points) / count
    spread = sum((point[0] - x) ** 2 for point in points)
    return sum((point[0] - x) * (point[1] - y) for point in points) / spread if spread else 0.0


def use_test_environment():
    """Continues with the Python packages of the tests, which are installed first if they are missing. Makes their modules importable."""
    sys.path.insert(0, str(ROOT / "tests/python"))
    if all(importlib.util.find_spec(name) for name in ("boto3", "deltalake", "ministack", "pytest")):
        return
    loader = importlib.machinery.SourceFileLoader("tests_run", str(ROOT / "tests/run"))
    run = importlib.util.module_from_spec(importlib.util.spec_from_loader("tests_run", loader))
    loader.exec_module(run)
    python = run.python_env()
    if python is None or str(python) == sys.executable:
        sys.exit("the Python packages of the tests could not be installed")
    os.execv(python, [str(python), *sys.argv])
