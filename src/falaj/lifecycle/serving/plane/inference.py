"""One request: its values, the features that go with them, the model's answer, the record, the reply.

A model that fails on an acceptable request (it raises, or an answer is not a finite number) gives no
answer: the caller gets 422 `no_finite_answer`, the record says why, and it counts as an error of the
version, never of the caller.

A canary's failure is not the caller's: it is recorded, and the stable version answers. So is a canary
that keeps the caller waiting for longer than the plan's guard allows. What the stable version cannot
answer either says nothing about the canary and is not held against it. Whoever names a version gets
that version, and neither its answers nor its failures are judged.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import msgspec
from msgspec import UNSET

from falaj.kernel.clock import Clock
from falaj.kernel.errors import FalajError, Invalid
from falaj.lifecycle.rollout.model import share
from falaj.lifecycle.serving.plane.attempt import UNREAD, Arrays, Attempt, Read, failed, judged, matrix_of, read
from falaj.lifecycle.serving.plane.constant import Told, constant_answer
from falaj.lifecycle.serving.plane.enrich import OnlineValues
from falaj.lifecycle.serving.plane.journal import Journal, Prediction
from falaj.lifecycle.serving.plane.loading import Version
from falaj.lifecycle.serving.plane.protocol import InferRequest, requested_outputs, routing_key
from falaj.lifecycle.serving.plane.shadows import Mirrored, Shadows
from falaj.lifecycle.serving.plane.state import Model, Served, State
from falaj.lifecycle.serving.plane.watching import ERROR, NON_FINITE, SERVED, SLOW, Watch, score_of
from falaj.lifecycle.training.encoding import Matrix

INLINE_ROWS = 64  # larger batches run in a thread, so that they do not keep others waiting
INLINE_SECONDS = 0.005  # a challenger that takes longer runs in a thread, so that it does not keep others waiting


class NoAnswer(Invalid):
    """The model has no finite answer for an acceptable request."""

    status = 422


class TooSlow(Exception):
    """A challenger took longer than the guard allows."""


class Asked(msgspec.Struct, gc=False):
    """One request on its way. `started` is its arrival (perf counter), `moment` the platform's time (µs since 1970)."""

    model: Model
    generation: int
    request: InferRequest
    principal: str
    started: float
    moment: int
    outputs: frozenset[str] | None = None
    fell_back: str = ""  # the digest of the challenger that the answer was expected from


class Inference:
    """Answers infer requests. Belongs to the event loop's thread."""

    def __init__(self, store: OnlineValues, journal: Journal, clock: Clock, worker: str, shadows: Shadows) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._worker = worker
        self._shadows = shadows
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._challengers = ThreadPoolExecutor(1, thread_name_prefix="challenger")
        self._json = msgspec.json.Encoder()
        self.requests = 0
        self.errors = 0

    async def answer(
        self, state: State, model: str, label: str, request: InferRequest, principal: str, started: float
    ) -> bytes:
        """The response body; `started` is the request's arrival (perf counter). Raises `FalajError`."""
        killed = state.killed.get(model) if state.killed else None
        if killed is not None and killed.answer and not label:
            moment = int(self._clock.now().timestamp() * 1_000_000)
            body, record = constant_answer(killed, request, self._constant_facts(state, principal, started, moment))
            self._journal.append(record)
            self.requests += 1
            return self._json.encode(body)
        traffic = state.model(model)
        key = routing_key(request)
        if label:
            route = traffic.named(label)
        elif len(traffic.places) == 1:
            route = traffic.stable()
        else:
            route = traffic.pick(self._journal.next_id if key is None else key)
        moment = int(self._clock.now().timestamp() * 1_000_000)
        asked = Asked(traffic, state.generation, request, principal, started, moment)
        if route.watch is not None and not label:
            return await self._challenged(asked, route, route.watch)
        attempt = await self._attempt(route.version, asked)
        if attempt.failure:
            raise _no_answer(self._record(asked, route, attempt, ""))
        if label:
            return self._reply(asked, route, attempt, None)
        score = None
        if traffic.latest is not None:
            score = score_of(route.version.contract, attempt.outputs)
            traffic.latest.put(score)
        return self._reply(asked, route, attempt, score, mirror=bool(traffic.shadows))

    def _constant_facts(self, state: State, principal: str, started: float, moment: int) -> Told:
        """What the record of a constant answer says beside the answer."""
        spent = int((perf_counter() - started) * 1_000_000)
        return Told(self._journal.next_id, moment, principal, state.generation, self._worker, spent)

    def close(self) -> None:
        """End the threads; what is under way is finished first."""
        self._challengers.shutdown(cancel_futures=True)
        self._pool.shutdown()
        self._shadows.close()

    # a challenger

    async def _challenged(self, asked: Asked, route: Served, watch: Watch) -> bytes:
        """The challenger's answer or, when it has none, the stable version's."""
        began = perf_counter()
        watch.begin()
        try:
            attempt = await self._tried(route.version, asked, watch.patience)
            if attempt.failure:
                return await self._instead(asked, route, watch, attempt)
            late = watch.patience is not None and perf_counter() - began > watch.patience
            body = self._reply(asked, route, attempt, None, mirror=bool(asked.model.shadows))
            if asked.model.latest is not None:
                watch.pair(score_of(route.version.contract, attempt.outputs), watch.unused(asked.model.latest))
            watch.add(SERVED | (SLOW if late else 0), asked.moment)
            return body
        finally:
            watch.end()

    async def _instead(self, asked: Asked, route: Served, watch: Watch, attempt: Attempt) -> bytes:
        """The stable version's answer to a request that its challenger failed."""
        stable = asked.model.stable()
        answered = await self._attempt(stable.version, asked)  # if this raises, the request itself was wrong
        asked.fell_back = route.version.digest
        if answered.failure:
            record = self._record(asked, stable, answered, "")
            self._record(asked, route, attempt, record.id)
            raise _no_answer(record)
        watch.add(attempt.code, asked.moment)
        route.version.counts.fallbacks += 1
        score = score_of(stable.version.contract, answered.outputs) if asked.model.latest is not None else None
        primary = self._journal.next_id
        body = self._reply(asked, stable, answered, score, mirror=bool(asked.model.shadows))
        self._record(asked, route, attempt, primary)
        return body

    async def _tried(self, version: Version, asked: Asked, patience: float | None) -> Attempt:
        """A challenger's attempt; whatever goes wrong is in it."""
        seen = UNREAD
        try:
            asked.outputs = requested_outputs(version.contract, asked.request)
            seen = read(version, asked.request, self._store, asked.moment)
            return judged(version, seen, await self._run_challenger(version, matrix_of(version, seen), patience))
        except TooSlow as e:
            return failed(version, seen, e, SLOW)
        except Exception as e:  # no failure of a challenger, of whatever kind, may become the caller's
            return failed(version, seen, e)

    async def _run_challenger(self, version: Version, matrix: Matrix, patience: float | None) -> Arrays:
        """The answers. Raises `TooSlow` after `patience` seconds, and whatever the runtime raises."""
        if len(matrix) <= INLINE_ROWS and version.seconds <= INLINE_SECONDS:
            return _timed(version, matrix)
        under_way = asyncio.get_running_loop().run_in_executor(self._challengers, _timed, version, matrix)
        await asyncio.wait({under_way}, timeout=patience)
        if not under_way.done():
            under_way.cancel()
            raise TooSlow(f"no answer within {(patience or 0) * 1000:g} ms")
        return under_way.result()

    # any version

    async def _attempt(self, version: Version, asked: Asked) -> Attempt:
        """A version's attempt. Raises `FalajError` for a request that it does not take."""
        asked.outputs = requested_outputs(version.contract, asked.request)
        seen = read(version, asked.request, self._store, asked.moment)
        matrix = matrix_of(version, seen)
        try:
            if len(matrix) <= INLINE_ROWS:
                return judged(version, seen, version.run(matrix))
            loop = asyncio.get_running_loop()
            return judged(version, seen, await loop.run_in_executor(self._pool, version.run, matrix))
        except (
            Exception
        ) as e:  # the runtime raises its own untyped errors; each is the model's failure, and is recorded
            return failed(version, seen, e)

    def _reply(self, asked: Asked, route: Served, attempt: Attempt, score: float | None, mirror: bool = False) -> bytes:
        """Record an answer; the response body."""
        record = self._record(asked, route, attempt, "")
        if mirror:  # once the answer is on its way
            asyncio.get_running_loop().call_soon(self._mirror, asked, attempt, record.id, score)
        return self._json.encode(_response(asked, route, record, attempt))

    def _record(self, asked: Asked, route: Served, attempt: Attempt, primary: str) -> Prediction:
        """Write an attempt down and count it. Raises `Unavailable`: then no answer may be given."""
        version, seen = attempt.version, attempt.read
        duration = perf_counter() - asked.started
        record = Prediction(
            id=self._journal.next_id,
            at=asked.moment,
            model=asked.model.name,
            version=version.alias,
            digest=version.digest,
            principal=asked.principal,
            generation=asked.generation,
            worker=self._worker,
            rows=seen.rows,
            inputs=seen.columns,
            outputs=attempt.outputs,
            features=seen.features.values,
            statuses=seen.features.statuses,
            event_times=seen.features.event_times,
            duration=int(duration * 1_000_000),
            request=asked.request.id if asked.request.id is not UNSET else "",
            error=attempt.failure,
            role=route.role,
            primary=primary,
        )
        self._journal.append(record)
        failed_ = bool(attempt.code & (ERROR | NON_FINITE))
        self.requests += not primary
        self.errors += failed_ and not primary
        version.counts.add(duration, seen.rows, failed_)
        if seen.features.statuses:
            total = version.counts.features
            for status, count in seen.features.counts.items():
                total[status] += count
        return record

    # shadows

    def _mirror(self, asked: Asked, attempt: Attempt, primary: str, score: float | None) -> None:
        """Offer an answered request to the shadows that it falls on."""
        for route in asked.model.shadows:
            watch = route.watch
            if watch is None or watch.trip is not None or share(route.version.digest, primary) * 100 >= route.weight:
                continue
            seen, failure = self._seen_by(route.version, asked, attempt)
            self._shadows.offer(
                Mirrored(route.version, watch, seen, failure, score, asked.moment, asked.generation, asked.principal,
                         asked.request.id if asked.request.id is not UNSET else "", primary)
            )  # fmt: skip

    def _seen_by(self, version: Version, asked: Asked, attempt: Attempt) -> tuple[Read, Attempt | None]:
        """What a shadow reads of a request, mostly what was read already; and why it cannot."""
        ours, theirs = version.contract, attempt.version.contract
        try:
            if (ours.inputs, ours.keys, ours.views) == (theirs.inputs, theirs.keys, theirs.views):
                return attempt.read, None
            return read(version, asked.request, self._store, asked.moment), None
        except FalajError as e:
            return attempt.read, failed(version, attempt.read, e)


def _timed(version: Version, matrix: Matrix) -> Arrays:
    """Run, and remember how long few rows take."""
    began = perf_counter()
    arrays = version.run(matrix)
    if len(matrix) <= INLINE_ROWS:
        version.seconds = perf_counter() - began
    return arrays


def _no_answer(record: Prediction) -> NoAnswer:
    return NoAnswer(
        f"{record.version} has no answer for this request: {record.error}",
        hint="nothing is wrong with the request's form; the failure is counted against the version",
        code="no_finite_answer",
        details={"prediction_id": record.id, "version_digest": record.digest},
    )


def _response(asked: Asked, route: Served, record: Prediction, attempt: Attempt) -> dict[str, Any]:
    version, arrays, wanted = attempt.version, attempt.arrays, asked.outputs
    outputs = [
        {
            "name": o.name,
            "shape": list(arrays[o.name].shape),
            "datatype": o.datatype,
            "data": record.outputs[o.name] if arrays[o.name].ndim == 1 else arrays[o.name].ravel().tolist(),
        }
        for o in version.contract.outputs
        if wanted is None or o.name in wanted
    ]
    parameters: dict[str, Any] = {
        "version_digest": version.digest,
        "prediction_id": record.id,
        "features": attempt.read.features.counts,
        "generation": record.generation,
        "role": route.role,
    }
    if asked.fell_back:
        parameters["fallback_from"] = asked.fell_back
    body: dict[str, Any] = {
        "model_name": record.model,
        "model_version": version.label,
        "parameters": parameters,
        "outputs": outputs,
    }
    if asked.request.id is not UNSET:
        body["id"] = asked.request.id
    return body
