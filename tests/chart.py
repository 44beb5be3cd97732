"""`deploy/values.yaml` in Dagster's Helm chart: `.ci/chart FOLDER` runs this file on a chart.

The chart is not in this repository, so that pytest does not collect this file by itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from dagster._config import validate_config
from dagster._core.instance.config import dagster_instance_config
from dagster_k8s import K8sRunLauncher

DEPLOY = Path(__file__).parent.parent / "deploy"
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "values.yaml").read_text())


@pytest.fixture(scope="module")
def chart() -> helm_python.Chart:
    return helm_python.Chart.load(os.environ["DAGSTER_CHART"])


@pytest.fixture(scope="module")
def manifests(chart: helm_python.Chart) -> dict[str, Any]:
    """The objects of each template, by the template's name."""
    rendered = chart.render(VALUES, name="dagster", namespace="default")
    return {
        Path(name).stem: list(yaml.safe_load_all(text))
        for name, text in rendered.items()
        if name.endswith(".yaml")
    }


@pytest.fixture
def instance(manifests: dict[str, Any]) -> str:
    """The dagster.yaml of all pods."""
    (config_map,) = manifests["configmap-instance"]
    return str(config_map["data"]["dagster.yaml"])


def test_the_values_are_valid_by_the_schema_of_the_chart(chart: helm_python.Chart) -> None:
    chart.validate_schema(VALUES)


def test_the_schema_refuses_a_mistyped_value(chart: helm_python.Chart) -> None:
    values = yaml.safe_load(yaml.safe_dump(VALUES))
    values["concurrency"]["pools"]["defaultLimitt"] = 4
    with pytest.raises(helm_python.HelmError, match="defaultLimitt"):
        chart.validate_schema(values)


def test_dagster_takes_the_instance_and_it_has_the_settings_of_a_server(
    instance: str, tmp_path: Path
) -> None:
    (tmp_path / "dagster.yaml").write_text(instance)
    settings, _ = dagster_instance_config(str(tmp_path))
    of_a_server = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    for name in ("concurrency", "run_retries", "telemetry"):
        assert settings[name] == of_a_server[name]
    monitoring = of_a_server["run_monitoring"]
    assert settings["run_monitoring"].items() >= {
        (name, value) for name, value in monitoring.items() if name != "max_runtime_seconds"
    }
    launcher = settings["run_launcher"]
    assert launcher["class"] == "K8sRunLauncher"
    config_type = K8sRunLauncher.config_type()  # type: ignore[no-untyped-call]
    checked = validate_config(config_type, launcher["config"])
    assert checked.success, checked.errors


def test_the_code_location_and_its_runs_have_the_image_the_variables_and_the_secret(
    manifests: dict[str, Any],
) -> None:
    (deployment,) = [each for each in manifests["deployment-user"] if each]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (location,) = VALUES["dagster-user-deployments"]["deployments"]
    assert container["image"] == "{repository}:{tag}".format(**location["image"])
    # Each also names a secret for Celery, which need not exist.
    assert {"secretRef": {"name": "octogen"}} in container["envFrom"]
    (of_runs,) = [
        yaml.safe_load(each["value"])
        for each in container["env"]
        if each["name"] == "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT"
    ]
    assert "octogen" in of_runs["k8s"]["env_secrets"]
    (variables,) = [each for each in manifests["configmap-env-user"] if each]
    assert variables["metadata"]["name"] in of_runs["k8s"]["env_config_maps"]
    assert variables["data"]["OCTOGEN_SNAPSHOTS"] == location["env"]["OCTOGEN_SNAPSHOTS"]


def test_no_password_or_key_is_rendered(manifests: dict[str, Any]) -> None:
    assert not [each for each in manifests["secret-postgres"] if each]
    assert not [each for each in manifests["secret-celery-config"] if each]
