"""``infer_batch(inputs)``: requests of equal shape concatenated on axis 0 and split again afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import Any

import numpy as np

from safe_triton.errors import DeadlineExceeded, OutputError
from safe_triton.runtime.forms.engine import Engine, Execute
from safe_triton.validation.outputs import not_a_mapping

Member = tuple[int, dict[str, Any], int]


class BatchExecution:
    """Runs ``infer_batch`` over groups of requests.

    Requests whose inputs have the same names and the same shapes apart from axis 0 form a group; a group never has
    more rows than a single request may have. Responses keep the order of the requests.

    Args:
        engine: the parts of the request path.
        infer_batch: the author's bound method.
    """

    def __init__(self, engine: Engine, infer_batch: Callable[[dict[str, Any]], Any]) -> None:
        self._engine = engine
        self._plan = engine.plan
        self._stats = engine.stats
        self._slot = engine.watchdog.slot
        self._answer = engine.outcomes.answer
        self._infer_batch = infer_batch
        self._tensor, self._response = engine.backend.Tensor, engine.backend.InferenceResponse
        self._check_outputs = engine.plan.check_outputs
        self._outcomes = engine.stats.outcomes
        self._due_s = 0.0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request exactly once; never raises."""
        responses: list[Any] = [None] * len(requests)
        stats = self._stats
        first, execution_before = monotonic(), stats.execution_s
        try:
            max_rows = self._plan.max_batch_rows
            groups, self._due_s = self._groups(requests, responses)
            for members in groups:
                if sum([rows for _, _, rows in members]) <= max_rows:
                    self._run(responses, members)
                    continue
                for chunk in _chunks(members, max_rows):
                    self._run(responses, chunk)
        except BaseException as error:
            self._slot[0] = 0.0
            # Never one response object twice: two requests that share an error response crash tritonserver 2.51.0.
            return [self._answer(error) if response is None else response for response in responses]
        stats.guard_s += monotonic() - first - (stats.execution_s - execution_before)
        return responses

    def _groups(self, requests: list[Any], responses: list[Any]) -> tuple[Iterable[list[Member]], float]:
        """Return the groups, and when the last of the callers wants its answer; 0.0 if one of them has no such time."""
        groups: dict[Any, list[Member]] = {}
        latest_s = 0.0
        check_request, member_of = self._engine.check_request, self._member_of
        for index, request in enumerate(requests):
            try:
                inputs = check_request(request)
                key, rows = member_of(inputs)
            except BaseException as error:
                responses[index] = self._answer(error)
                self._engine.take_due()
            else:
                latest_s = max(latest_s, self._engine.take_due())
                groups.setdefault(key, []).append((index, inputs, rows))
        return groups.values(), latest_s if latest_s < inf else 0.0

    def _member_of(self, inputs: dict[str, Any]) -> tuple[Any, int]:
        """Return what has to be equal within a group, and the request's rows."""
        if len(inputs) == 1:
            ((name, array),) = inputs.items()
            shape = array.shape
            return (name, *shape[1:]), shape[0]
        return (*inputs, *[array.shape[1:] for array in inputs.values()]), self._engine.rows_of(inputs)

    def _run(self, responses: list[Any], members: list[Member]) -> None:
        if len(members) == 1:
            self._run_alone(responses, members[0])
            return
        try:
            joined = {name: np.concatenate([inputs[name] for _, inputs, _ in members]) for name in members[0][1]}
            outputs = self._timed(joined)
        except BaseException as error:
            self._slot[0] = 0.0
            # After a deadline nothing runs again: its time is spent.
            if self._engine.isolates and not isinstance(error, DeadlineExceeded):
                for member in members:
                    self._run_alone(responses, member)
            else:
                self._fail(responses, members, error)
            return
        total = sum([rows for _, _, rows in members])
        try:
            checked = self._check_outputs(outputs, total)
        except OutputError:
            pass  # which requests that concerns is found out below
        else:
            self._split(responses, members, checked)
            return
        try:
            self._check_rows(outputs, total)
        except OutputError as error:
            self._fail(responses, members, error)
            return
        start = 0
        for member in members:
            stop = start + member[2]
            try:
                self._respond(responses, member, {name: _rows(array, start, stop) for name, array in outputs.items()})
            except BaseException as error:
                responses[member[0]] = self._answer(error)
            start = stop

    def _split(self, responses: list[Any], members: list[Member], checked: list[tuple[str, Any]]) -> None:
        """Give each request its rows of outputs that are good as a whole, and so in every part."""
        tensor, response = self._tensor, self._response
        answered = start = 0
        for index, _, rows in members:
            stop = start + rows
            try:
                if len(checked) == 1:
                    ((name, array),) = checked  # a comprehension is a call
                    responses[index] = response([tensor(name, array[start:stop])])
                else:
                    responses[index] = response([tensor(name, array[start:stop]) for name, array in checked])
                answered += 1
            except BaseException as error:
                responses[index] = self._answer(error)
            start = stop
        self._outcomes["ok"] += answered

    def _run_alone(self, responses: list[Any], member: Member) -> None:
        try:
            self._respond(responses, member, self._timed(member[1]))
        except BaseException as error:
            self._slot[0] = 0.0
            responses[member[0]] = self._answer(error)

    def _respond(self, responses: list[Any], member: Member, outputs: Any) -> None:
        index, _, rows = member
        tensor = self._tensor
        checked = self._check_outputs(outputs, rows)
        responses[index] = self._response([tensor(name, array) for name, array in checked])
        self._outcomes["ok"] += 1

    def _timed(self, inputs: dict[str, Any]) -> Any:
        if self._due_s:
            self._engine.watchdog.shorten(self._due_s)
        return self._engine.timed(self._infer_batch, inputs)

    def _fail(self, responses: list[Any], members: list[Member], error: BaseException) -> None:
        for index, _, _ in members:
            responses[index] = self._answer(error)

    def _check_rows(self, outputs: Any, total: int) -> None:
        """Reject outputs with other rows than came in: split, they would hand one client another's answer."""
        if type(outputs) is not dict:
            raise not_a_mapping(outputs)
        for name in self._plan.outputs:
            array = outputs.get(name)
            got = f"{array.shape[0]} rows" if isinstance(array, np.ndarray) and array.ndim else type(array).__name__
            if got != f"{total} rows":
                raise OutputError(
                    f"output.batch: {got}, expected {total} rows at outputs['{name}']", reason="output.batch"
                )


def compile_infer_batch(engine: Engine, infer_batch: Callable[[dict[str, Any]], Any]) -> Execute:
    """Compile ``execute`` for ``infer_batch``; see :class:`BatchExecution`."""
    return BatchExecution(engine, infer_batch).execute


def _chunks(members: list[Member], max_rows: int) -> list[list[Member]]:
    """Split a group so that no chunk has more rows than a single request may have."""
    chunks: list[list[Member]] = []
    rows = max_rows
    for member in members:
        if rows + member[2] > max_rows:
            chunks.append([])
            rows = 0
        chunks[-1].append(member)
        rows += member[2]
    return chunks


def _rows(array: Any, start: int, stop: int) -> Any:
    """Return a request's rows; what is no array is refused by its name or type afterwards."""
    return array[start:stop] if isinstance(array, np.ndarray) else array
