"""The image that the Dockerfile describes: built and run, if this machine has a container engine."""

import json
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
IMAGE = "deltashare-test"
SHARES = """\
version: 1
authorization: none
shares:
- name: retail
  schemas:
  - name: sales
    tables:
    - name: products
      location: /tables/products
"""


def engine():
    """The container engine, or why there is none."""
    lacking = []
    for name in ("docker", "podman"):
        if shutil.which(name) is None:
            lacking.append(f"{name} not found")
        elif subprocess.run([name, "info"], capture_output=True, timeout=60).returncode != 0:
            lacking.append(f"{name} does not answer")
        else:
            return name, None
    return None, " and ".join(lacking)


@pytest.fixture(scope="module")
def image():
    name, lacking = engine()
    if name is None:
        pytest.skip(lacking)
    subprocess.run([name, "build", "--tag", IMAGE, str(ROOT)], check=True, timeout=3600)
    yield name
    subprocess.run([name, "rmi", "--force", IMAGE], capture_output=True, timeout=300)


def ask(url, body=None):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()


def test_the_image_serves_a_table_without_root_and_without_writing(image, tmp_path):
    inspected = subprocess.run([image, "image", "inspect", IMAGE], check=True, capture_output=True, text=True, timeout=60).stdout
    assert json.loads(inspected)[0]["Config"]["User"] == "65532:65532"
    (tmp_path / "shares.yaml").write_text(SHARES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = subprocess.run(
        [image, "run", "--detach", "--read-only", "--cap-drop", "ALL", "--publish", f"127.0.0.1:{port}:8080",
         "--volume", f"{tmp_path / 'shares.yaml'}:/shares.yaml:ro", "--volume", f"{ROOT / 'examples/tables'}:/tables:ro", IMAGE,
         "serve", "--shares", "/shares.yaml", "--listen", "0.0.0.0:8080", "--public-url", f"http://127.0.0.1:{port}"],
        check=True, capture_output=True, text=True, timeout=120)
    container = started.stdout.strip()
    try:
        endpoint = f"http://127.0.0.1:{port}/delta-sharing/"
        deadline = time.monotonic() + 60
        while True:
            try:
                assert json.loads(ask(f"{endpoint}shares"))["items"][0]["name"] == "retail"
                break
            except OSError:
                assert time.monotonic() < deadline, subprocess.run([image, "logs", container], capture_output=True, text=True, timeout=60)
                time.sleep(0.5)
        lines = ask(f"{endpoint}shares/retail/schemas/sales/tables/products/query", b"{}").splitlines()
        files = [json.loads(line)["file"] for line in lines[2:]]
        assert files and all(len(ask(file["url"])) == file["size"] for file in files)
    finally:
        subprocess.run([image, "rm", "--force", container], capture_output=True, timeout=60)
