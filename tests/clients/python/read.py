"""The Python client, told on standard input what to read: see tests/python/clients/programs.py."""

import pathlib
import sys

import delta_sharing

TESTS = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(TESTS / "tables/make"), str(TESTS / "clients")]
import canonical  # noqa: E402
from questions import answer_all  # noqa: E402

profile = sys.argv[1]


def answer(asked):
    if asked["do"] == "tables":
        tables = delta_sharing.SharingClient(profile).list_all_tables()
        return {"tables": [f"{table.share}.{table.schema}.{table.name}" for table in tables]}
    frame = delta_sharing.load_as_pandas(f"{profile}#{asked['table']}", limit=asked.get("limit"), version=asked.get("version"))
    return {"rows": canonical.rows(frame.to_dict("records")), "columns": list(frame.columns)}


answer_all(answer)
