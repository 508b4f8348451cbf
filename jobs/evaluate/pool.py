"""Tasks over processes, each result handed back as it comes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from jobs.evaluate.run import Task, run_task
from streamad.errors import StreamadError

AHEAD = 2
"""Tasks per process that wait there: none idles, and few are lost where one is killed."""
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
              "POLARS_MAX_THREADS")  # fmt: skip


def run_all(
    tasks: Sequence[Task], n_processes: int, on_result: Callable[[dict[str, Any]], None]
) -> None:
    """Run tasks; ``on_result`` gets every record in this process, in the order they end.

    Raises
    ------
    StreamadError
        where a process was killed, as the system does that has no memory left
    """
    if n_processes <= 1 or len(tasks) <= 1:
        for task in tasks:
            on_result(run_task(task))
        return
    # Processes are started afresh: a copy of this one would wait for threads it does not have.
    context = multiprocessing.get_context("spawn")
    waiting, running = list(reversed(tasks)), set[Future[dict[str, Any]]]()
    with (
        _one_thread_each(),
        ProcessPoolExecutor(min(n_processes, len(tasks)), mp_context=context) as pool,
    ):
        try:
            while waiting or running:
                while waiting and len(running) < AHEAD * n_processes:
                    running.add(pool.submit(run_task, waiting.pop()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    on_result(one.result())
        except BrokenProcessPool as error:
            msg = (
                "a process was killed, often for lack of memory; run the command again with fewer "
                "--jobs: results so far are kept"
            )
            raise StreamadError(msg) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let new processes compute in one thread: there are as many as cores already."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
