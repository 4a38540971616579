"""What `sam build` makes of the project with the real cargo-lambda, for both architectures of the template."""

import io
import os
import pathlib
import platform
import re
import shutil
import struct
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(sys.executable).parent
# Where each is left for the tests that start one.
BUILT = ROOT / "tests/.cache/bootstrap"
TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
MACHINES = {"x86_64": 62, "arm64": 183}
# The C library of Amazon Linux 2023.
GLIBC = (2, 34)
# Bytes: of the function unpacked, and of a package that is uploaded without S3.
UNPACKED, PACKAGE = 250 * 2**20, 50 * 2**20
# An architecture that this machine cannot run is built in half the time, with fewer optimizations: what is tested of it does not depend on them.
# RELEASE=1 builds it as a release does.
QUICK = {"CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "16"}
HERE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())


@pytest.fixture(scope="module", params=TARGETS)
def architecture(request):
    rustc = shutil.which("rustc")
    libraries = subprocess.run([rustc, "--print", "target-libdir", "--target", TARGETS[request.param]],
                               text=True, capture_output=True, check=True).stdout.strip()
    if not pathlib.Path(libraries).is_dir():
        pytest.skip(f"Rust's standard library for {TARGETS[request.param]} is missing: rustup target add {TARGETS[request.param]}")
    return request.param


@pytest.fixture(scope="module")
def bootstrap(architecture):
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-central-1"}
    if architecture != HERE and not os.environ.get("RELEASE"):
        environment |= QUICK
    done = subprocess.run([BIN / "sam", "build", "--build-dir", BUILT / architecture, "--parameter-overrides", f"Architecture={architecture}"],
                          cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return BUILT / architecture / "Function/bootstrap"


def section_types(content):
    """The types of the sections of an ELF file."""
    (start,), (size, count) = struct.unpack_from("<Q", content, 40), struct.unpack_from("<HH", content, 58)
    return {struct.unpack_from("<I", content, start + number * size + 4)[0] for number in range(count)}


def test_it_is_for_the_architecture_and_for_amazon_linux(architecture, bootstrap):
    content = bootstrap.read_bytes()
    assert content[:5] == b"\x7fELF\x02" and struct.unpack_from("<H", content, 18) == (MACHINES[architecture],)
    wanted = {tuple(map(int, version.split(b"."))) for version in re.findall(rb"GLIBC_(\d+\.\d+)", content)}
    assert wanted and max(wanted) <= GLIBC, sorted(wanted)


def test_it_is_far_from_the_limits_of_lambda(architecture, bootstrap):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as package:
        package.write(bootstrap)
    size, package = bootstrap.stat().st_size, len(packed.getvalue())
    print(f"{architecture}: {size / 2**20:.1f} MiB of {UNPACKED // 2**20}, packed {package / 2**20:.1f} MiB of {PACKAGE // 2**20}")
    assert 2 not in section_types(bootstrap.read_bytes()), "it has a table of symbols"
    assert size < UNPACKED / 4 and package < PACKAGE / 2


def test_it_holds_nothing_of_the_command_line(bootstrap):
    # Where code may panic, the path of its source is in the program.
    crates = set(re.findall(rb"/([a-z0-9_-]+)-\d+\.\d+\.\d+[^/]*/src/", bootstrap.read_bytes()))
    assert b"lambda_runtime" in crates and b"tokio" in crates
    assert not crates & {b"clap_builder", b"s3s", b"serde-saphyr"}
