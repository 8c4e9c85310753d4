"""pyproject.toml, constraints.txt and environment.yml must not drift apart."""

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + [r for extra in EXTRAS.values() for r in extra]]


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def conda_dependencies() -> tuple[dict[str, str], list[str]]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    conda = [entry.partition("=") for entry in environment["dependencies"] if isinstance(entry, str)]
    return {name: version for name, _, version in conda}, pip


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_every_direct_dependency_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    pin = pins().get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not in constraints.txt: run `make constraints`"
    assert pin in requirement.specifier, f"constraints.txt pins {pin}, pyproject.toml wants {requirement}"


def test_pins_are_public_versions_free_of_paths_and_hosts() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert all(version.local is None for version in pins().values())
    assert "://" not in text
    assert " @ " not in text


def test_constraints_leave_the_package_itself_out() -> None:
    assert canonicalize_name(PROJECT["name"]) not in pins()


def test_conda_python_satisfies_requires_python() -> None:
    conda, _ = conda_dependencies()
    assert Version(conda["python"]) in SpecifierSet(PROJECT["requires-python"])


def test_conda_installs_this_package_and_its_extras_under_the_constraints() -> None:
    _, pip = conda_dependencies()
    assert "-c constraints.txt" in pip
    (editable,) = [line.removeprefix("-e ") for line in pip if line.startswith("-e ")]
    assert editable.startswith(".[")
    assert set(editable.removeprefix(".[").removesuffix("]").split(",")) == {"book", "test"}
