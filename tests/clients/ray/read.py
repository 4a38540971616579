"""Ray Data, told on standard input what to read: see tests/python/clients/programs.py."""

import logging
import os
import pathlib
import sys
import tempfile

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DATA_DISABLE_PROGRESS_BARS="1", RAY_memory_monitor_refresh_ms="0")

import ray  # noqa: E402

TESTS = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / "tables/make"), str(TESTS / "clients")]
import canonical  # noqa: E402
from questions import answer_all  # noqa: E402

profile = sys.argv[1]
home = tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True)  # Names of sockets are short.
answers = os.fdopen(os.dup(1), "w")  # Ray writes to standard output.
os.dup2(2, 1)
ray.init(num_cpus=1, include_dashboard=False, object_store_memory=100_000_000, _temp_dir=home.name, _node_ip_address="127.0.0.1",
         logging_level=logging.ERROR, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False


def answer(asked):
    found = ray.data.read_delta_sharing_tables(
        f"{profile}#{asked['table']}", limit=asked.get("limit"), version=asked.get("version"), override_num_blocks=1)
    return {"rows": canonical.rows(found.take_all())}


answer_all(answer, answers)
ray.shutdown()
home.cleanup()
