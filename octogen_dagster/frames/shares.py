"""The check of a setting that is a share."""


def require_share(name: str, value: float) -> None:
    """Check that a setting is a share.

    Args:
        name: The name of the setting, for the error message.
        value: Its value.

    Raises:
        ValueError: The value is not from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a share from 0 to 1 (0.05 is 5 %), not {value}")
