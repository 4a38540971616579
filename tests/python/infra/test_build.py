"""What `sam build` asks cargo for, with a cargo that only writes down what it was asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cloudformation import ROOT, parse

CARGO = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
  "lambda build"*) mkdir -p target/lambda/lambda && echo bootstrap > target/lambda/lambda/bootstrap ;;
  metadata*) exit 1 ;;
esac
"""


def example(**commented):
    """The example of samconfig.toml, with these of its lines that are comments."""
    text = (ROOT / "infra/samconfig.example.toml").read_text()
    for name, value in commented.items():
        assert f'  # "{name}={value}",' in text
        text = text.replace(f'  # "{name}={value}",', f'  "{name}={value}",')
    return text


@pytest.mark.parametrize("arguments, settings, wanted", [
    ([], None, "lambda build --release --arm64 --bin lambda"),
    (["--parameter-overrides", "Architecture=arm64"], None, "lambda build --release --arm64 --bin lambda"),
    # The default of cargo-lambda is x86_64.
    (["--parameter-overrides", "Architecture=x86_64"], None, "lambda build --release --bin lambda"),
    ([], example(), "lambda build --release --arm64 --bin lambda"),
    ([], example(Architecture="x86_64"), "lambda build --release --bin lambda"),
    (["--config-env", "consumer"], example(), "lambda build --release --arm64 --bin lambda"),
])
def test_sam_builds_the_lambda_binary(arguments, settings, wanted, tmp_path):
    project, tools, log = tmp_path / "project", tmp_path / "bin", tmp_path / "asked"
    project.mkdir()
    tools.mkdir()
    for name in ("template.yaml", "Cargo.toml"):
        shutil.copy(ROOT / name, project)
    for name in ("cargo", "cargo-lambda"):
        (tools / name).write_text(CARGO.format(log=log))
        (tools / name).chmod(0o755)
    env = os.environ | {
        "HOME": str(tmp_path), "PATH": f"{tools}:{os.environ['PATH']}", "SAM_CLI_TELEMETRY": "0",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    if settings:
        (project / "samconfig.toml").write_text(settings)
    done = subprocess.run([Path(sys.executable).parent / "sam", "build", *arguments], cwd=project, env=env,
                          text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wanted in log.read_text().splitlines()
    assert (project / ".aws-sam/build/Function/bootstrap").read_text() == "bootstrap\n"
    built = parse((project / ".aws-sam/build/template.yaml").read_text())
    assert built["Resources"]["Function"]["Properties"]["CodeUri"] == "Function"
