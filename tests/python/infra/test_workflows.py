"""The workflows of GitHub: pinned actions, the least permissions, and the versions that the project has elsewhere."""

import re

import pytest
import yaml
from cloudformation import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_pins_actions_and_grants_each_job_its_own_permissions(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"] and job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
    # Text that somebody else chooses goes into commands as a variable, never as a part of them.
    assert not [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "${{" in step.get("run", "")]


def test_only_the_job_that_creates_the_release_can_write():
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    writers = [name for name, job in jobs.items() if "write" in job["permissions"].values()]
    assert writers == ["release"] and set(jobs["release"]["needs"]) == set(jobs) - {"release"}


def test_ci_runs_what_a_developer_runs():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert ".ci/run" in [step.get("run") for job in jobs.values() for step in job["steps"]]


def test_workflows_and_the_image_use_the_version_of_rust_that_the_package_needs():
    needed = re.search(r'^rust-version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    named = {version for path in WORKFLOWS for version in re.findall(r"(?:RUST_VERSION: |toolchain install |default )(\d[\d.]+)", path.read_text())}
    assert named == {f"{needed}.0"}
    assert f"FROM rust:{needed}-" in (ROOT / "Dockerfile").read_text()
