"""A program: moto's S3 with conditional writes that are atomic, as those of S3 are.

moto looks at the condition and then writes, and another thread may write in between.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

_CONDITIONS = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"}


def main() -> None:
    moto: Any = DomainDispatcherApplication(create_backend_app)
    writing = threading.Lock()

    def s3(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "PUT" or _CONDITIONS.isdisjoint(environ):
            answer: Iterable[bytes] = moto(environ, start_response)
            return answer
        with writing:
            return list(moto(environ, start_response))

    run_simple("127.0.0.1", 0, s3, threaded=True)


if __name__ == "__main__":
    main()
