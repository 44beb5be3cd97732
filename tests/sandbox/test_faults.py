"""The faults of the REST API: their text form, and which requests they select."""

import pytest

from octogen_dagster.sandbox.faults import Fault, FaultKind


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("cut", Fault("cut")),
        ("latency=0.25", Fault("latency", 0.25)),
        (
            "status=503,times=3,path=/products/search,page=2,retry_after=7",
            Fault("status", 503, times=3, path="/products/search", page=2, retry_after=7),
        ),
        (
            "times=1,status=429,retry_after=Wed, 21 Oct 2026 07:28:00 GMT",
            Fault("status", 429, times=1, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"),
        ),
        (
            "status=504,detail=product_lookup_timed_out",
            Fault("status", 504, detail="product_lookup_timed_out"),
        ),
        ("redirect=http://x.example/a,b?c=d", Fault("redirect", "http://x.example/a,b?c=d")),
    ],
)
def test_a_fault_is_parsed(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "unknown word ''"),
        ("flood", "unknown word 'flood'"),
        ("cut,often=3", "unknown word 'often'"),
        ("times=3", "name exactly one of"),
        ("cut,html", "name exactly one of"),
        ("status", "status needs a number from 400 to 599"),
        ("status=teapot", "status needs a number from 400 to 599"),
        ("status=200", "status needs a number from 400 to 599"),
        ("latency=-1", "latency needs seconds"),
        ("latency=soon", "latency needs seconds"),
        ("price=-1", "price needs a number"),
        ("price=nan", "price needs a number"),
        ("redirect=elsewhere", "redirect needs an http or https URL"),
        ("cut=1", "cut takes no value"),
        ("cut,times=often", "times needs a whole number"),
        ("cut,times=0", "times must be 1 or more"),
        ("cut,page=0", "page must be 1 or more"),
        ("cut,path=products", "path must begin with /"),
        ("cut,path=/me,page=1", "page selects searches: leave out the path '/me'"),
        ("cut,retry_after=1", "retry_after goes with status"),
        ("cut,detail=gone", "detail goes with status, not with cut"),
    ],
)
def test_invalid_text_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Fault.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("path", "page", "expected"),
    [
        ("/products/search", 3, True),
        ("/products/search", 2, False),
        ("/catalogs", 3, False),
    ],
)
def test_a_fault_selects_its_path_and_page(path: str, page: int, expected: bool) -> None:
    fault = Fault("cut", path="/products/search", page=3)
    assert fault.selects(path, page, has_cursor=True) is expected


@pytest.mark.parametrize("kind", ["loop_cursor", "restart_cursor"])
def test_a_cursor_fault_selects_only_requests_with_a_cursor(kind: FaultKind) -> None:
    assert Fault(kind).selects("/products/search", 2, has_cursor=True)
    assert not Fault(kind).selects("/products/search", 1, has_cursor=False)
