"""Stores files in S3, Google Cloud Storage or Azure Blob Storage, through obstore.

Polars reads the files with the same options and credentials, because both libraries are based on
the Rust crate `object_store`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnknownConfigurationKeyError,
)
from obstore.store import from_url

from octogen_dagster.background import run_in_thread
from octogen_dagster.errors import MissingPackageError
from octogen_dagster.masking import has_url_secret, is_secret, masked
from octogen_dagster.storage.files import ListedFile, ReplacedError

Provider = Callable[[], tuple[dict[str, str], "int | None"]]
"""Returns credentials by Polars' option names, and their expiry time as a Unix timestamp."""

_SCHEMES = {"s3": "aws_", "s3a": "aws_", "gs": "google_", "gcs": "google_"}
_SCHEMES |= dict.fromkeys(("az", "azure", "abfs", "abfss"), "azure_")
"""The optional prefix for storage option names, by URL scheme."""
_CLIENT_OPTIONS = {
    *("allow_http", "allow_invalid_certificates", "connect_timeout", "proxy_ca_certificate"),
    *("proxy_excludes", "proxy_url", "read_timeout", "root_certificate", "timeout", "user_agent"),
    *("default_content_type", "http1_only", "http2_only", "http2_keep_alive_interval"),
    *("http2_keep_alive_timeout", "http2_keep_alive_while_idle", "http2_max_frame_size"),
    *("pool_idle_timeout", "pool_max_idle_per_host", "randomize_addresses"),
}
"""HTTP client options, which must be passed to obstore separately from the storage options.

Polars accepts HTTP client options as storage options, but obstore panics on them.
"""
_OWN_CREDENTIALS = {
    *("access_key_id", "skip_signature", "web_identity_token_file", "bearer_token"),
    *("service_account", "service_account_path", "service_account_key", "application_credentials"),
}
"""Options that contain credentials. If any is set, the machine's credentials are not used."""
_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=5)},
}


def bucket_of(url: str, setting: str = "base_dir", other: str = "a folder") -> tuple[str, str, str]:
    """Split the URL in a setting into scheme, bucket and prefix; raise ValueError if invalid."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    # In Azure URLs, @ and the account can follow the container.
    has_user = "@" in bucket and _SCHEMES.get(scheme) != "azure_"
    if "?" in rest or has_user or (scheme in _SCHEMES and ":" in bucket) or has_url_secret(url):
        raise ValueError(
            f"The URL in {setting} must contain only a bucket and a prefix. "
            "Credentials in a URL would be ignored, and Dagster would show them. Use "
            "s3://bucket/..., gs://bucket/... or az://container/..., and configure the credentials "
            "the way the cloud provider's SDK expects."
        )
    if scheme not in _SCHEMES or not bucket:
        raise ValueError(
            f"{setting} {url!r} is not a supported location. Use {other}, s3://bucket/..., "
            "gs://bucket/... or az://container/..."
        )
    return scheme, bucket, prefix


class Bucket:
    """Files under a prefix in a bucket. A missing bucket raises FileNotFoundError."""

    advice = (
        "Check that the bucket exists and is reachable, and that the credentials have access. Then "
        "try again."
    )

    def __init__(self, base_dir: str, options: Mapping[str, Any]) -> None:
        scheme, bucket, prefix = bucket_of(base_dir)
        self._url = f"{scheme.replace('gcs', 'gs')}://{bucket}"
        self._prefix = f"{prefix}/" if prefix else ""
        self._secrets = [str(value) for name, value in options.items() if is_secret(name, value)]
        self._options = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in options.items()
        }
        self._provider = _credential_provider(_SCHEMES[scheme], self._options)
        self._store = self._opened(_SCHEMES[scheme])

    def _opened(self, prefix: str) -> Any:
        bare = {name: name.lower().removeprefix(prefix) for name in self._options}
        client: Any = {bare[n]: v for n, v in self._options.items() if bare[n] in _CLIENT_OPTIONS}
        config: Any = {n: v for n, v in self._options.items() if bare[n] not in _CLIENT_OPTIONS}
        provider: Any = self._provider and functools.partial(_credential, self._provider)
        try:
            return from_url(
                self._url,
                config=config,
                client_options=client or None,  # an empty dict would ignore the environment
                retry_config=_RETRIES,
                credential_provider=provider,
            )
        except UnknownConfigurationKeyError as error:
            unknown = next((name for name in config if f"'{name.lower()}'" in str(error)), "")
            raise ValueError(
                f"The storage option {unknown!r} is not supported for {self._url}. Use option "
                "names that both obstore and Polars accept."
            ) from None
        except (BaseError, ValueError) as error:
            raise ValueError(
                f"The storage options are invalid for {self._url}: {self.reason(error)}. Fix the "
                "options."
            ) from None

    def uri(self, key: str) -> str:
        return f"{self._url}/{self._prefix}{key}"

    def reason(self, error: Exception) -> str:
        """Return an error's first line with secrets masked. obstore adds lines with details."""
        text = str(error).partition("\n")[0] or type(error).__name__
        text = re.sub(r"\?[^\s)]*", "", text)  # the query of a signed URL
        return masked(text, self._secrets).rstrip(".")

    def _call(self, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call obstore. On the main thread, use a worker thread, because obstore blocks signals."""
        call = functools.partial(work, self._store, *arguments, **options)
        if threading.current_thread() is not threading.main_thread():
            return call()
        return run_in_thread(call, "octogen-store")

    def require(self) -> None:
        """Raise FileNotFoundError if the bucket does not exist."""
        with contextlib.suppress(PermissionDeniedError):  # writing does not need permission to list
            self._call(_listed, f"{self._prefix}.octogen-no-such-folder")

    def version(self, key: str) -> object:
        """Return a value that identifies an object's version; None if it does not exist."""
        try:
            found = self._call(obstore.head, self._prefix + key)
        except FileNotFoundError:
            return None
        return found["e_tag"], found["version"], found["size"], found["last_modified"]

    def polars_arguments(self, key: str) -> dict[str, Any]:
        return {
            "source": self.uri(key),
            "storage_options": self._options,
            "credential_provider": self._provider,
        }

    def publish(self, written: Path, key: str) -> None:
        self._call(obstore.put, self._prefix + key, written)

    def publish_if(self, version: object, written: Path | bytes, key: str) -> object:
        """Publish an object only if its key still has the given version. Return the new version.

        S3 and Azure compare the ETag, and Google compares the generation. The object is uploaded in
        a single request.
        """
        mode: Any = "create"
        if isinstance(version, tuple):
            e_tag, generation, *_ = version
            known = {"e_tag": e_tag, "version": generation}
            mode = {name: value for name, value in known.items() if value is not None}
        try:
            put = self._call(obstore.put, self._prefix + key, written, mode=mode)
        except (AlreadyExistsError, PreconditionError) as error:
            raise ReplacedError from error
        return put["e_tag"], put["version"]

    def copy(self, key: str, target: str) -> None:
        self._call(obstore.copy, self._prefix + key, self._prefix + target)

    def files(self, folder: str) -> list[ListedFile]:
        return [
            ListedFile(each["path"].removeprefix(self._prefix), each["last_modified"])
            for each in self._call(_listed, self._prefix + folder)
        ]

    def get(self, key: str) -> bytes:
        return bytes(
            self._call(lambda store, path: obstore.get(store, path).bytes(), self._prefix + key)
        )

    def read(self, key: str) -> tuple[object, bytes]:
        """Return an object's version for `publish_if`, and its content."""

        def read(store: Any, path: str) -> tuple[object, bytes]:
            found = obstore.get(store, path)
            return (found.meta["e_tag"], found.meta["version"]), bytes(found.bytes())

        return self._call(read, self._prefix + key)  # type: ignore[no-any-return]

    def put(self, key: str, content: bytes) -> None:
        self._call(obstore.put, self._prefix + key, content)

    def delete(self, keys: Collection[str], _within: str | None = None) -> None:
        """Delete objects. Buckets have no folders, so the argument `_within` is ignored."""
        paths = [self._prefix + key for key in keys]
        if not paths:
            return
        try:
            self._call(obstore.delete, paths)
        except FileNotFoundError:  # an object was already deleted
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    self._call(obstore.delete, path)


def _listed(store: Any, prefix: str) -> Any:
    return obstore.list(store, prefix).collect()


def _credential_provider(prefix: str, options: dict[str, str]) -> Provider | None:
    """Return a provider that gets the machine's credentials from boto3 or google-auth.

    Both libraries support profiles and federated identities, which obstore does not. Return None if
    the library is not installed, or if the options contain credentials. `aws_profile` and the
    bearer token are removed from the options. Polars accepts the token as an option since 1.44.
    """
    import polars as pl

    for name in list(options) if prefix == "google_" else ():
        if name.lower().removeprefix(prefix) == "bearer_token":
            return functools.partial(_bearer, options.pop(name))
    profile = options.pop("aws_profile", None)
    if {name.lower().removeprefix(prefix) for name in options} & _OWN_CREDENTIALS:
        return None
    if prefix == "aws_" and importlib.util.find_spec("boto3"):
        import boto3

        region = boto3.Session(profile_name=profile).region_name
        if region and not any(name.lower().endswith("region") for name in options):
            options["aws_region"] = region
        return pl.CredentialProviderAWS(profile_name=profile, region_name=region)
    if profile:
        raise MissingPackageError(
            f"aws_profile {profile!r} requires boto3. Add boto3 to your project's dependencies."
        )
    if prefix == "google_" and importlib.util.find_spec("google.auth"):
        return pl.CredentialProviderGCP()
    return None


def _bearer(token: str) -> tuple[dict[str, str], None]:
    """Return a bearer token as a Polars credential that does not expire."""
    return {"bearer_token": token}, None


def _credential(provider: Provider) -> dict[str, Any]:
    """Convert a Polars provider's credentials to the format that obstore requires."""
    found, until = provider()
    expires_at = None if until is None else datetime.fromtimestamp(until, UTC)
    if "bearer_token" in found:
        return {"token": found["bearer_token"], "expires_at": expires_at}
    return {
        "access_key_id": found["aws_access_key_id"],
        "secret_access_key": found["aws_secret_access_key"],
        "token": found.get("aws_session_token"),
        "expires_at": expires_at,
    }
