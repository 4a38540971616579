"""The catalog and the commands over other engines of DynamoDB: MiniStack, and Amazon's own DynamoDB Local."""

import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from conftest import ROOT

HOME = ROOT / "tests/.env/dynamodb-local"
IVY = "https://repo1.maven.org/maven2/org/apache/ivy/ivy/2.5.3/ivy-2.5.3.jar"
IVY_SHA256 = "9502aa5aabf0b1484924a13ef4b5d24f121f7f91aab6768f11cc9d0906c0803b"
DYNAMODB_LOCAL = ["com.amazonaws", "DynamoDBLocal", "2.6.1"]


def jars():
    """The directory with DynamoDB Local and what it needs, fetched from Maven Central."""
    libraries = HOME / "lib" / DYNAMODB_LOCAL[2]
    if libraries.exists():
        return libraries
    HOME.mkdir(parents=True, exist_ok=True)
    ivy = HOME / "ivy.jar"
    try:
        content = urllib.request.urlopen(IVY, timeout=60).read()
    except OSError as error:
        pytest.skip(f"{IVY} cannot be fetched: {error}")
    assert hashlib.sha256(content).hexdigest() == IVY_SHA256
    ivy.write_bytes(content)
    fetched = HOME / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    done = subprocess.run(
        ["java", "-jar", ivy, "-cache", HOME / "cache", "-confs", "default", "-dependency", *DYNAMODB_LOCAL,
         "-retrieve", f"{fetched}/[artifact]-[revision](-[classifier]).[ext]"], capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        pytest.skip(f"{':'.join(DYNAMODB_LOCAL)} cannot be fetched from Maven Central:\n{done.stdout[-2000:]}")
    libraries.parent.mkdir(exist_ok=True)
    fetched.rename(libraries)
    return libraries


def can_compile():
    """Whether there is a Java that runs a source file, which takes a JDK of version 17 or newer."""
    java = shutil.which("java")
    version = subprocess.run([java, "--version"], capture_output=True, text=True).stdout.split() if java else []
    return shutil.which("javac") is not None and len(version) > 1 and int(version[1].split(".")[0]) >= 17


class DynamoDbLocal:
    """One DynamoDB Local on loopback, ended by its own process group."""

    def __init__(self):
        libraries = jars()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            ["java", f"-Dsqlite4java.library.path={libraries}", "-cp", f"{libraries}/*", pathlib.Path(__file__).with_name("Loopback.java"),
             "-inMemory", "-disableTelemetry", "-port", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.endpoint, timeout=2)
            except urllib.error.HTTPError:
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.2)

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture(scope="module")
def dynamodb_local():
    if not can_compile():
        pytest.skip("DynamoDB Local needs a JDK, version 17 or newer")
    engine = DynamoDbLocal()
    yield engine
    engine.stop()


def passes(endpoint, *command):
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "DELTASHARE_TEST_DYNAMODB": endpoint}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-8000:]


def test_the_catalog_on_ministack(aws):
    # MiniStack does not leave items out of answers that are too large for DynamoDB.
    passes(aws.endpoint, "cargo", "test", "--quiet", "--test", "catalog", "--", "--skip", "partial_answers")


def test_the_catalog_on_dynamodb_local(dynamodb_local):
    passes(dynamodb_local.endpoint, "cargo", "test", "--quiet", "--test", "catalog")


def test_the_commands_on_dynamodb_local(dynamodb_local):
    passes(dynamodb_local.endpoint, sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/python/test_admin.py")
