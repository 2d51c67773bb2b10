"""An asyncio server in a thread, for the length of a test."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator


@contextlib.contextmanager
def in_thread(serve: Callable[[threading.Event], Awaitable[None]]) -> Iterator[None]:
    """Run a server in a thread; it sets the event once it listens, and ends by cancellation."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    serving = loop.create_task(serve(started))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: loop):
            loop.run_until_complete(serving)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(30)
