"""A local Octogen for tests and first steps: a real HTTP server on loopback.

The sandbox follows Octogen's public contract. It shares no code with this package's client, so that
a bug in the client is not repeated in the sandbox.
"""

HOST = "127.0.0.1"
DEFAULT_PORT = 8787
DEFAULT_BASE_URL = f"http://{HOST}:{DEFAULT_PORT}/v1"
DEFAULT_API_KEY = "octo_live_00000000000000000000000000000000_c2FuZGJveC1rZXktbm90LWEtc2VjcmV0"
