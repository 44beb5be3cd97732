"""Where a sandbox listens, and the key that it takes, unless other ones are chosen."""

HOST = "127.0.0.1"
DEFAULT_PORT = 8787
DEFAULT_BASE_URL = f"http://{HOST}:{DEFAULT_PORT}/v1"
DEFAULT_API_KEY = "octo_live_00000000000000000000000000000000_c2FuZGJveC1rZXktbm90LWEtc2VjcmV0"
