"""The Python client, told on standard input what to read: see tests/python/clients/programs.py."""

import json
import pathlib
import sys

import delta_sharing

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tables/make"))
import canonical  # noqa: E402

profile = sys.argv[1]


def answer(asked):
    if asked["do"] == "tables":
        tables = delta_sharing.SharingClient(profile).list_all_tables()
        return {"tables": [f"{table.share}.{table.schema}.{table.name}" for table in tables]}
    frame = delta_sharing.load_as_pandas(f"{profile}#{asked['table']}", limit=asked.get("limit"), version=asked.get("version"))
    return {"rows": canonical.rows(frame.to_dict("records")), "columns": list(frame.columns)}


for line in sys.stdin:
    try:
        told = answer(json.loads(line))
    except Exception as error:
        told = {"error": str(error)}
        if getattr(error, "response", None) is not None:
            told["answer"] = error.response.json()
    print(json.dumps(told), flush=True)
