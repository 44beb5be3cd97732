"""Runs that a test puts into an instance."""

from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("127.0.0.1", 1), "repository"), "job"
)
"""The origin that a queued run must have."""
