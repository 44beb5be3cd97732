from tests.sharing.fixtures import (  # noqa: F401
    _nothing_from_outside,
    _quick_retries,
    hub,
    local_hub,
)
