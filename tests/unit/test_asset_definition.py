"""The runs of assets end as Dagster ends them, in whichever thread that is."""

import signal
import threading
from collections.abc import Generator

from octogen_dagster.assets.definition import canceling_ends


def test_a_step_that_dagster_has_left_is_closed_in_any_thread() -> None:
    def step() -> Generator[None, None, None]:
        with canceling_ends(None, None):
            yield

    raised: list[BaseException] = []

    def close() -> None:
        try:
            left.close()
        except BaseException as error:
            raised.append(error)

    before = signal.getsignal(signal.SIGINT)
    try:
        left = step()
        next(left)
        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert raised == []
