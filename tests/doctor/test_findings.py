from __future__ import annotations

from octogen_dagster.doctor.findings import Diagnosis, Finding

WARNED = Diagnosis(
    (
        Finding("Key", "ok", "it works."),
        Finding("Pool", "warning", "it has no limit.", "Set one."),
        Finding("Place", "skipped", "it was not given."),
    )
)


def test_a_diagnosis_is_ok_until_something_failed() -> None:
    assert WARNED.ok
    assert not Diagnosis((*WARNED.findings, Finding("Login", "failed", "refused."))).ok


def test_a_diagnosis_has_a_line_for_each_finding() -> None:
    assert str(WARNED).splitlines() == [
        "ok       Key: it works.",
        "warning  Pool: it has no limit. Set one.",
        "skipped  Place: it was not given.",
    ]


def test_a_diagnosis_as_values_of_json() -> None:
    assert WARNED.as_dict()["ok"] is True
    assert WARNED.as_dict()["findings"][1] == {
        "subject": "Pool",
        "status": "warning",
        "message": "it has no limit.",
        "advice": "Set one.",
    }
