"""The snippets of the page for recipients that need a client of their own, run as they are copied."""

import json
import os
import subprocess

import pytest
from programs import PROGRAMS

from conftest import ROOT, TOKEN, Server, hash_of, write_profile


@pytest.mark.skipif("command" not in PROGRAMS.get("node", {}), reason=PROGRAMS.get("node", {}).get("missing", "the client for Node is not installed"))
def test_the_snippet_for_node_runs(browser_page, tmp_path):
    shares = tmp_path / "shares.yaml"
    table = {"name": "products", "location": str(ROOT / "examples/tables/products")}
    shares.write_text(json.dumps({
        "version": 1, "shares": [{"name": "retail", "schemas": [{"name": "sales", "tables": [table]}]}],
        "recipients": [{"name": "r", "shares": ["retail"], "tokens": [{"sha256": hash_of(TOKEN), "expires": "never"}]}],
    }))
    server = Server("--shares", shares)
    try:
        profile = write_profile(tmp_path / "acme.share", server.endpoint, TOKEN)
        page = browser_page
        page.goto(server.endpoint)
        page.locator("#file").set_input_files(str(profile))
        page.get_by_role("button", name="products").click()
        page.get_by_label("Node", exact=True).check()
        code = page.get_by_role("region", name="JavaScript", exact=True).text_content()
        package = json.loads(page.get_by_role("region", name="package.json", exact=True).text_content())
        done = subprocess.run(["node", "-e", code], cwd=tmp_path, env={**os.environ, **PROGRAMS["node"].get("env", {})},
                              capture_output=True, text=True, timeout=120)
    finally:
        server.stop()
    assert done.returncode == 0 and "product_id" in done.stdout, done.stdout + done.stderr
    # What the snippet installs is what was run.
    ours = json.loads((ROOT / "tests/clients/node/package.json").read_text())
    assert package["dependencies"] == ours["dependencies"] and package["overrides"] == ours["overrides"]
