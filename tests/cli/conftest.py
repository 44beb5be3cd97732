from tests.sharing.fixtures import (  # noqa: F401
    _nothing_from_outside,
    hub,
    local_hub,
)
