"""Where cells are computed: in this process, in worker processes, or on a Ray cluster.

An engine yields (position, value or `Failure`) as cells finish. Ray is used directly: joblib's
backend for it hands out results only when all are there, which a killed driver would lose.
"""

import functools
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

Engine = Literal["local", "ray"]
Task = Callable[[Any], Any]
Outcomes = Iterator[tuple[int, Any]]

RETRIES = 3


class Failure(NamedTuple):
    """What went wrong in a cell; text, since not every exception travels between processes."""

    summary: str
    details: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        """Describe an exception.

        Args:
            error: The exception.

        Returns:
            Its type and message, and its traceback.
        """
        summary = f"{type(error).__name__}: {error}"
        return cls(summary, "".join(traceback.format_exception(error)))


def _attempt(task: Task, cell: Any) -> Any:
    try:
        return task(cell)
    except Exception as error:  # whatever it is, the other cells are not to suffer
        return Failure.of(error)


def _attempt_at(task: Task, index: int, cell: Any, driver: int) -> tuple[int, Any]:
    _leave_with(driver)
    return index, _attempt(task, cell)


@functools.cache
def _leave_with(driver: int) -> None:
    # A killed driver cannot stop its workers: they would compute what nobody takes, and wait on.
    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1)
        os._exit(1)

    if os.getpid() != driver:
        threading.Thread(target=watch, daemon=True).start()


def _local(task: Task, cells: Sequence[Any], jobs: int | None, gpus: float) -> Outcomes:
    left = dict(enumerate(cells))
    for attempt in range(RETRIES + 1):
        tasks = [joblib.delayed(_attempt_at)(task, *item, os.getpid()) for item in left.items()]
        parallel = joblib.Parallel(
            n_jobs=jobs or os.cpu_count() or 1,
            batch_size=1,
            return_as="generator_unordered",
        )
        try:
            for index, value in parallel(tasks):
                del left[index]
                yield index, value
            return
        except TerminatedWorkerError as error:
            # The pool cannot tell whose worker died: all cells still missing are tried again.
            if attempt == RETRIES:
                for index in left:
                    yield index, Failure.of(error)


def _ray(task: Task, cells: Sequence[Any], jobs: int | None, gpus: float) -> Outcomes:
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine='ray' needs Ray: pip install 'lora-dropout[cluster]'") from error
    connected = ray.is_initialized()
    if not connected:
        ray.init(include_dashboard=False, logging_level="warning")
    # Ray's retries are for workers and machines that die; exceptions are `_attempt`'s.
    remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_attempt)
    queue = iter(enumerate(cells))
    running: dict[Any, int] = {}
    try:
        shared = ray.put(task)
        while True:
            free = None if jobs is None else jobs - len(running)
            for index, cell in islice(queue, free):
                running[remote.remote(shared, cell)] = index
            if not running:
                return
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                try:
                    value = ray.get(reference)
                except ray.exceptions.RayError as error:
                    value = Failure.of(error)
                yield running.pop(reference), value
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if not connected:
            ray.shutdown()


ENGINES: dict[str, Callable[[Task, Sequence[Any], int | None, float], Outcomes]] = {
    "local": _local,
    "ray": _ray,
}
