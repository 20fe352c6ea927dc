"""A worker class for gunicorn that answers every request in a goroutine of its own.

    gunicorn --pythonpath examples --worker-class gunicorn_worker.Worker app:app

The application is WSGI as ever (Flask, Django ...), and each request may wait as it likes. The
worker is gunicorn's own with threads, but for its pool: what a thread would do there, a goroutine
does. `--worker-connections`, 1,000 if not given, is how many connections it takes at a time.
"""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from gunicorn.workers.gthread import ThreadWorker

from gofer import WaitGroup, patch

T = TypeVar("T")
P = ParamSpec("P")


class Goroutines(Executor):
    """What it is given to do it does at once."""

    def __init__(self) -> None:
        self._under_way = WaitGroup()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = Future[T]()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        self._under_way.go(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if wait:
            self._under_way.wait()


class Worker(ThreadWorker):
    def init_process(self) -> None:
        patch()
        super().init_process()

    def get_thread_pool(self) -> Any:
        return Goroutines()
