from tests.api.conftest import transport

__all__ = ["transport"]
