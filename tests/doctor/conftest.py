from tests.sharing.fixtures import _nothing_from_outside  # noqa: F401
