"""A local Octogen for tests and first steps: a real HTTP server on loopback.

It follows Octogen's public contract and shares no code with this package's client, so that a bug in
one is not repeated in the other.
"""

HOST = "127.0.0.1"
DEFAULT_PORT = 8787
DEFAULT_BASE_URL = f"http://{HOST}:{DEFAULT_PORT}/v1"
DEFAULT_API_KEY = "octo_live_00000000000000000000000000000000_c2FuZGJveC1rZXktbm90LWEtc2VjcmV0"
