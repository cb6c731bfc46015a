"""Work on several processors: the only place of the audit that starts processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from safe_triton.audit.finding import Finding
from safe_triton.audit.work import Result, Task, run

WORTH_IT = 48
"""Tasks from which on starting processes takes less time than it saves."""

CHUNK = 8


def run_chunk(tasks: Sequence[Task]) -> list[Result]:
    """Do some tasks in this process."""
    return [run(task) for task in tasks]


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def run_tasks(tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    """Do all tasks.

    Args:
        tasks: to do.
        jobs: processes at the same time; 0 for as many as there are processors.
    Yields:
        A result for each task, in their order. When a task ends its process, as a parser in C might, its result is the
        finding ``audit-crash``.
    """
    jobs = jobs or processors()
    if jobs == 1 or len(tasks) < WORTH_IT:
        yield from map(run, tasks)
        return
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    done = 0
    try:
        with ProcessPoolExecutor(jobs, mp_context=_context()) as pool:
            for results in pool.map(run_chunk, chunks):
                yield from results
                done += 1
    except BrokenProcessPool:
        for chunk in chunks[done:]:
            yield from map(run_alone, chunk)


def run_alone(task: Task) -> Result:
    """Do one task in a process of its own, so that its end says which task it was."""
    try:
        with ProcessPoolExecutor(1, mp_context=_context()) as pool:
            return pool.submit(run, task).result()
    except BrokenProcessPool:
        message = "the check of it ended its process: it may be made to exhaust memory or to crash a parser"
        return Result(findings=[Finding(rule="audit-crash", path=task.shown, message=message)])


def _context() -> multiprocessing.context.BaseContext:
    """Fork where that is safe: it takes 10 ms, where a new interpreter takes 300."""
    return multiprocessing.get_context("fork" if threading.active_count() == 1 else "spawn")
