"""One model at work: a thread of its own runs the scheduler, requests come from an event loop and go back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ree.errors import InternalError, ReeError
from ree.generation.engine import Engine
from ree.generation.generator import Completion, TextPiece
from ree.generation.model import LanguageModel
from ree.generation.pages import Pages
from ree.generation.receipt import Receipt
from ree.generation.scheduler import Generation, Scheduler
from ree.serving.errors import ApiError
from ree.serving.metrics import ServerMetrics
from ree.serving.warming import warm_up

RETRY_SECONDS = 1


class Readiness(StrEnum):
    """What a service is doing."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True)
class Ended:
    """An answer is complete."""

    receipt: Receipt


@dataclass(frozen=True)
class Failed:
    """An answer will not be completed."""

    error: ReeError


Event = TextPiece | Ended | Failed
Place = tuple[int, Event]  # which answer of a request, and what came


class Mailbox:
    """What threads hand to one reader in an event loop: it is woken once for all that has come."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._come: list[Place] = []
        self._wanted: asyncio.Future[None] | None = None

    def put(self, place: Place) -> None:
        """From any thread; once the loop is closed nobody waits for it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take_in, place)

    def _take_in(self, place: Place) -> None:
        self._come.append(place)
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def take(self, patience: float | None = None) -> list[Place]:
        """All that has come since the last time; [] where nothing comes for `patience` seconds."""
        timer = None
        if not self._come:
            self._wanted = self._loop.create_future()
            timer = None if patience is None else self._loop.call_later(patience, self._wake)
            try:
                await self._wanted
            finally:
                self._wanted = None
                if timer is not None:
                    timer.cancel()
        come, self._come = self._come, []
        return come


class Job:
    """An answer under way, and where its events go."""

    def __init__(self, answer: Completion, index: int, mailbox: Mailbox) -> None:
        self.answer, self.index, self._mailbox = answer, index, mailbox
        self.open = True

    def put(self, event: Event) -> None:
        """Hand an event on, from any thread."""
        self.open = self.open and isinstance(event, TextPiece)
        self._mailbox.put((self.index, event))


class Running:
    """The answers of one request under way. Whoever began them closes them, which aborts what has not ended."""

    def __init__(self, service: ModelService, jobs: list[Job], mailbox: Mailbox) -> None:
        self._service, self._jobs, self._mailbox = service, jobs, mailbox

    async def places(self, patience: float | None = None) -> AsyncIterator[list[Place]]:
        """Events as they come, all that are there together, until each answer has ended or failed; [] where
        nothing came for `patience` seconds."""
        left = len(self._jobs)
        while left:
            come = await self._mailbox.take(patience)
            left -= sum(not isinstance(event, TextPiece) for _, event in come)
            yield come

    def close(self) -> None:
        self._service.abort(self._jobs)


class ModelService:
    """A model that answers several requests at once.

    load: gives the model, in the service's own thread, so that a server can say that it is loading.
    slots: answers under way together; queue: requests that may wait beside them; positions: tokens of a
    prompt with its answer, at most, by default what the model takes; pages: bytes of beginnings that are kept;
    warm: ready once usual shapes are prepared.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], LanguageModel],
        *,
        slots: int = 4,
        queue: int = 64,
        positions: int | None = None,
        pages: int = 0,
        threads: int | None = None,
        warm: bool = False,
        keep: Callable[[Receipt], Receipt] = lambda r: r,
        metrics: ServerMetrics | None = None,
    ) -> None:
        self.name, self.slots, self.queue = name, slots, queue
        self.state, self.failure = Readiness.LOADING, ""
        self.metrics = metrics or ServerMetrics()
        self.on_failure: Callable[[ReeError], None] = lambda e: None
        self._load, self._positions, self.threads, self._keep = load, positions, threads, keep
        self._warm, self._pages = warm, pages
        self._model: LanguageModel | None = None
        self._wake = threading.Condition()
        self._arrived: list[Job] = []
        self._gone: list[Job] = []
        self._jobs: dict[Generation, Job] = {}
        self._thread = threading.Thread(target=self._main, name=f"ree-serve-{name}", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def close(self) -> None:
        """Abort what is under way, and end the thread."""
        with self._wake:
            self.state = Readiness.CLOSED
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def model(self) -> LanguageModel:
        """The model; ApiError while there is none."""
        if self.state is not Readiness.READY or self._model is None:
            why = f": {self.failure}" if self.failure else ""
            raise ApiError(f"model '{self.name}' is {self.state}{why}", "model", status=503)
        return self._model

    @property
    def positions(self) -> int:
        """Tokens of a prompt with its answer, at most."""
        most = self.model.settings.context
        return most if self._positions is None else min(most, self._positions)

    @property
    def load_now(self) -> tuple[int, int]:
        """(answers under way, answers that wait)."""
        n = len(self._jobs) + len(self._arrived)
        return min(n, self.slots), max(n - self.slots, 0)

    def begin(self, answers: Sequence[Completion]) -> Running:
        """Take in the answers of one request, all or, with ApiError 429, none."""
        mailbox = Mailbox()
        jobs = [Job(a, i, mailbox) for i, a in enumerate(answers)]
        with self._wake:
            if self.state is not Readiness.READY:
                raise ApiError(f"model '{self.name}' is {self.state}", "model", status=503)
            n = len(self._jobs) + len(self._arrived)
            if n and n + len(jobs) > self.slots + self.queue:
                raise ApiError(f"{n} answers are under way or wait already", status=429)
            self._arrived += jobs
            self._wake.notify()
        return Running(self, jobs, mailbox)

    def abort(self, jobs: Iterable[Job]) -> None:
        """Nobody waits for these any more; for those that have ended it is of no effect."""
        with self._wake:
            self._gone += [j for j in jobs if j.open]
            self._wake.notify()

    def _main(self) -> None:
        try:
            model = self._load()
            most = model.settings.context if self._positions is None else self._positions
            engine = Engine(
                model.forward,
                self.slots,
                most=min(most, model.settings.context),
                threads=self.threads,
            )
            scheduler = Scheduler(engine, pages=Pages(self._pages))
            if self._warm:
                warm_up(model, scheduler, self.threads)
        except Exception as e:
            error = _as_error(e)
            with self._wake:
                self.failure = error.message
                self.state = Readiness.FAILED if self.state is Readiness.LOADING else self.state
            self.on_failure(error)
            return
        with self._wake:
            self._model = model
            self.state = Readiness.READY if self.state is Readiness.LOADING else self.state
        while self._turn(scheduler):
            pass

    def _turn(self, scheduler: Scheduler) -> bool:
        """One step of the scheduler, or a wait for something to do; False once the service is closed."""
        with self._wake:
            while (
                self.state is Readiness.READY
                and scheduler.idle
                and not self._arrived
                and not self._gone
            ):
                self._wake.wait()
            arrived, self._arrived = self._arrived, []
            gone, self._gone = self._gone, []
            closed = self.state is Readiness.CLOSED
            self._jobs |= {j.answer.generation: j for j in arrived}
        for job in arrived:
            try:
                scheduler.submit(job.answer.generation)
            except ReeError as e:
                self._fail(scheduler, job, e)
        for job in list(self._jobs.values()) if closed else gone:
            self._fail(scheduler, job, ApiError("the server stops", status=503))
        if not closed and not scheduler.idle:
            self._step(scheduler)
        return not closed

    def _step(self, scheduler: Scheduler) -> None:
        try:
            # one by one: where a stop string ends an answer, nothing more may be drawn of it
            for g, token in scheduler.step():
                self._took(scheduler, self._jobs[g], token)
        except Exception as e:  # nothing that is under way can be trusted now
            self.metrics.failures += 1
            for job in list(self._jobs.values()):
                self._fail(scheduler, job, _as_error(e))

    def _took(self, scheduler: Scheduler, job: Job, token: int | None) -> None:
        """Hand a token on; what goes wrong with it is of its answer alone."""
        try:
            job.put(job.answer.take(token))
            self.metrics.generated += token is not None
            if job.answer.finish is not None:
                self._end(scheduler, job)
        except Exception as e:
            self.metrics.failures += job.answer.generation.failure is None
            self._fail(scheduler, job, _as_error(e))

    def _end(self, scheduler: Scheduler, job: Job) -> None:
        answer = job.answer
        try:
            receipt = self._keep(answer.receipt(answer.claim(scheduler, self.threads)))
        except ReeError as e:
            raise ApiError(e.message, status=500, hint=e.hint) from e
        scheduler.abort(answer.generation)
        with self._wake:
            self._jobs.pop(answer.generation, None)
        job.put(Ended(receipt))

    def _fail(self, scheduler: Scheduler, job: Job, error: ReeError) -> None:
        if self._jobs.get(job.answer.generation) is job:
            scheduler.abort(job.answer.generation)
            with self._wake:
                del self._jobs[job.answer.generation]
            job.put(Failed(error))


def _as_error(e: Exception) -> ReeError:
    return e if isinstance(e, ReeError) else InternalError(f"{type(e).__name__}: {e}"[:300])
