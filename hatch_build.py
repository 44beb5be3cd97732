"""Puts a software bill of materials into the wheel (PEP 770), in CycloneDX's format."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.requirements import Requirement

# The wheel of pycurl has it, and no other metadata names it to a scanner.
BUNDLED = {"pycurl": ["libcurl"]}


class SbomHook(BuildHookInterface[Any]):
    """It names what the package requires: the wheel itself bundles nothing of others."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the bill for a wheel that is installed, and none for an editable one."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        path = Path(self._folder.name, f"{self.metadata.core.name}.cdx.json")
        path.write_text(json.dumps(self._bill(), indent=2) + "\n")
        build_data["sbom_files"].append(str(path))

    def _bill(self) -> dict[str, Any]:
        core = self.metadata.core
        package = f"pkg:pypi/{core.name}@{self.metadata.version}"
        required = [_component(each) for each in core.dependencies_complex.values()]
        required.sort(key=lambda component: component["name"])
        # It has neither a serial number nor a time, so that two builds of a commit are the same.
        return {
            "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.7",
            "version": 1,
            "metadata": {
                "component": {
                    "type": "library",
                    "bom-ref": package,
                    "name": core.name,
                    "version": self.metadata.version,
                    "licenses": [{"expression": core.license_expression}],
                    "purl": package,
                }
            },
            "components": required,
            "dependencies": [
                {"ref": package, "dependsOn": [component["bom-ref"] for component in required]}
            ],
        }


def _component(requirement: Requirement) -> dict[str, Any]:
    bounds = sorted(requirement.specifier, key=lambda bound: bound.version)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{requirement.name}",
        "name": requirement.name,
        # The version is the choice of who installs the wheel.
        "isExternal": True,
        "versionRange": "vers:pypi/" + "|".join(map(str, bounds)),
        "purl": f"pkg:pypi/{requirement.name}",
    }
    if bundled := BUNDLED.get(requirement.name):
        component["components"] = [{"type": "library", "name": name} for name in bundled]
    return component
