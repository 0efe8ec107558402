"""The application: endpoints of OpenAI's API over services, as an ASGI app for uvicorn or any other server."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from ree import __version__
from ree.embedding.model import EmbeddingModel
from ree.errors import InputError, InternalError, ReeError
from ree.generation.generator import Completion, Request, TextPiece
from ree.generation.grammar import Grammar, GrammarError
from ree.generation.model import LanguageModel
from ree.generation.request import Sampling
from ree.generation.template import render
from ree.serving.answers import Reply, TextSoFar
from ree.serving.bodies import Bodies
from ree.serving.embeddings import EmbeddingRequest, EncoderService
from ree.serving.errors import ApiError
from ree.serving.fields import Fields, is_token, read_object
from ree.serving.http import HANDLERS, EventStream, Json, Keys, OwnPages, while_there
from ree.serving.metrics import ServerMetrics
from ree.serving.page import page_routes
from ree.serving.receipts import Receipts
from ree.serving.schema import MAX_TOKENS, ChatRequest, CompletionRequest, Wanted
from ree.serving.service import Failed, ModelService, Readiness, Running
from ree.serving.tool_calls import CLOSE, OPEN
from ree.serving.verifying import Verifier

PATIENCE = 15.0  # seconds without a token after which a stream says that it still lives


@dataclass
class Server:
    """What an app serves. strict: unknown fields are refused; keys: who may ask, everyone if there are none;
    local: only names of this machine are answered to."""

    services: Mapping[str, ModelService]
    receipts: Receipts = field(default_factory=Receipts)
    metrics: ServerMetrics = field(default_factory=ServerMetrics)
    keys: Sequence[str] = ()
    strict: bool = False
    started: int = field(default_factory=lambda: int(time.time()))
    verifier: Verifier = field(default_factory=Verifier)
    encoders: Mapping[str, EncoderService] = field(default_factory=dict)
    local: bool = False
    bodies: Bodies = field(default_factory=Bodies)

    def app(self) -> Starlette:
        """The ASGI app; its life begins with loading the models and ends with closing them."""
        post = {"/v1/chat/completions": self.chat, "/v1/completions": self.complete,
                "/v1/embeddings": self.embed, "/tokenize": self.tokenize,
                "/detokenize": self.detokenize, "/apply-template": self.apply_template,
                "/v1/receipts/{digest}/verify": self.verify}  # fmt: skip
        get = {
            "/health": self.health,
            "/metrics": self.show_metrics,
            "/version": self.version,
            "/v1/models": self.models,
            "/v1/models/{name:path}": self.one_model,
            "/v1/receipts/{digest}": self.receipt,
        }
        routes = [Route(p, self._counted(p, f), methods=["POST"]) for p, f in post.items()]
        routes += [Route(p, f, methods=["GET"]) for p, f in get.items()]
        routes += page_routes()

        @asynccontextmanager
        async def life(app: Starlette) -> AsyncIterator[None]:
            everything = list(self.everything.values())
            for service in everything:
                service.start()
            yield
            for service in everything:
                await run_in_threadpool(service.close)

        middleware = [Middleware(OwnPages, local=self.local), Middleware(Keys, keys=self.keys)]
        return Starlette(
            routes=routes, lifespan=life, exception_handlers=HANDLERS, middleware=middleware
        )

    def _counted(self, path: str, endpoint: Any) -> Any:
        async def counted(request: HttpRequest) -> Response:
            status = 500
            try:
                response: Response = await endpoint(request)
                status = response.status_code
            except ApiError as e:
                status = e.status
                raise
            except ReeError:
                status = 400
                raise
            finally:
                self.metrics.requests[path, status] += 1
            return response

        return counted

    @property
    def everything(self) -> dict[str, ModelService | EncoderService]:
        return {**self.services, **self.encoders}

    def service(self, name: str) -> ModelService:
        """The service of a model; ApiError 404 for another name."""
        if name in self.encoders:
            raise ApiError(f"model '{name}' gives vectors, by /v1/embeddings, and no text", "model")
        if name not in self.services:
            raise self._no_model(name)
        return self.services[name]

    def _no_model(self, name: str) -> ApiError:
        known = ", ".join(sorted([*self.services, *self.encoders]))
        return ApiError(f"there is no model '{name[:100]}'", "model", status=404, code="model_not_found",
                        hint=f"expected one of {known}")  # fmt: skip

    async def chat(self, request: HttpRequest) -> Response:
        wanted = await self.bodies.read(request, partial(ChatRequest.of, strict=self.strict))
        service = self.service(wanted.model)
        date = wanted.date or datetime.now(UTC).date().isoformat()
        asked = [Request(messages=wanted.messages, tools=wanted.tools, date=date)]
        return await self._answer(request, service, wanted, asked, "messages")

    async def complete(self, request: HttpRequest) -> Response:
        wanted = await self.bodies.read(request, partial(CompletionRequest.of, strict=self.strict))
        service = self.service(wanted.model)
        asked = [
            Request(prompt=p) if isinstance(p, str) else Request(tokens=p) for p in wanted.prompts
        ]
        return await self._answer(request, service, wanted, asked, "prompt")

    async def embed(self, request: HttpRequest) -> Response:
        wanted = await self.bodies.read(request, partial(EmbeddingRequest.of, strict=self.strict))
        if wanted.model in self.services:
            raise ApiError(f"model '{wanted.model}' gives text and no vectors", "model")
        if wanted.model not in self.encoders:
            raise self._no_model(wanted.model)
        service = self.encoders[wanted.model]
        value = await while_there(request.receive, service.answer(wanted))
        value["system_fingerprint"] = fingerprint(service.model)
        return Json(value, headers=_warning(wanted.unknown))

    async def _answer(
        self,
        request: HttpRequest,
        service: ModelService,
        wanted: Wanted,
        asked: Sequence[Request],
        param: str,
    ) -> Response:
        model = service.model
        seed = secrets.randbits(63) if wanted.seed is None else wanted.seed
        answers = await run_in_threadpool(_answers, service, model, wanted, asked, seed, param)
        self.metrics.prompt_tokens += sum(
            len(a.generation.prompt) for a in answers[:: wanted.choices]
        )
        echoed = await run_in_threadpool(_echoed, wanted, answers, model)
        tools = _callable(wanted, model)
        reply = Reply(wanted, answers, fingerprint(model), seed, echoed, tools)
        headers = {"X-Request-Id": reply.id, **_warning(wanted.unknown)}
        running = service.begin(answers)
        if wanted.stream:
            return EventStream(_chunks(running, reply), headers, running.close)
        try:
            await while_there(request.receive, _all(running, reply))
        finally:
            running.close()
        headers["X-Ree-Receipt"] = ", ".join(reply.receipts[i] for i in range(len(answers)))[:4000]
        return Json(reply.whole(), headers=headers)

    async def tokenize(self, request: HttpRequest) -> Response:
        f = Fields(await self.bodies.read(request, read_object))
        service = self._named(f)
        model, pieces = service.model, f.flag("return_token_strs")
        messages, special = f.raw("messages"), f.flag("add_special_tokens", True)
        text, tools = f.text("prompt", None), f.raw("tools")
        if (messages is None) == (text is None):
            raise ApiError("expected prompt or messages, one of both", "prompt")
        if f.rest():
            raise ApiError(f"there is no field '{f.rest()[0][:60]}'", f.rest()[0][:60])

        def work() -> list[int]:
            if text is not None:
                return model.tokenizer.encode(text, add_special=special)
            return model.chat_prompt(messages, datetime.now(UTC).date().isoformat(), tools)

        tokens = await run_in_threadpool(work)
        strs = {"token_strs": [model.tokenizer.piece(t) for t in tokens]} if pieces else {}
        return Json(
            {"count": len(tokens), "max_model_len": service.positions, "tokens": tokens, **strs}
        )

    async def detokenize(self, request: HttpRequest) -> Response:
        f = Fields(await self.bodies.read(request, read_object))
        model = self._named(f).model
        tokens = f.list_of("tokens", MAX_TOKENS, is_token, "token ids")
        text = await run_in_threadpool(model.tokenizer.decode, tokens, skip_special=False)
        return Json({"prompt": text})

    async def apply_template(self, request: HttpRequest) -> Response:
        f = Fields(await self.bodies.read(request, read_object))
        model = self._named(f).model
        if model.template is None:
            raise ApiError("the model has no chat template", "messages")
        template, date = model.template, datetime.now(UTC).date().isoformat()
        messages, tools = f.raw("messages"), f.raw("tools")
        text = await run_in_threadpool(
            lambda: render(
                template, messages, date=date, tools=tools, special=model.settings.special
            )
        )
        return Json({"prompt": text})

    def _named(self, f: Fields) -> ModelService:
        """The service that a field names; if there is one alone, it need not."""
        name = f.text("model", None)
        return self.service(
            next(iter(self.services)) if name is None and len(self.services) == 1 else name or ""
        )

    async def health(self, request: HttpRequest) -> Response:
        states = {n: str(s.state) for n, s in self.everything.items()}
        ready = all(s.state is Readiness.READY for s in self.everything.values())
        return Json(
            {"status": "ok" if ready else "unavailable", "models": states}, 200 if ready else 503
        )

    async def version(self, request: HttpRequest) -> Response:
        return Json({"version": __version__})

    async def models(self, request: HttpRequest) -> Response:
        return Json(
            {"object": "list", "data": [self._card(n) for n in (*self.services, *self.encoders)]}
        )

    async def one_model(self, request: HttpRequest) -> Response:
        name = request.path_params["name"]
        if name not in self.services and name not in self.encoders:
            raise self._no_model(name)
        return Json(self._card(name))

    def _card(self, name: str) -> dict[str, Any]:
        card = {"id": name, "object": "model", "created": self.started, "owned_by": "ree"}
        if name in self.encoders:
            return card | self.encoders[name].card()
        service = self.services[name]
        card["kind"] = "language"
        if service.state is not Readiness.READY:
            return card | {"state": str(service.state)}
        m = service.model
        return card | {"max_model_len": service.positions, "system_fingerprint": fingerprint(m),
                       "program": m.program.program_hash.hex(), "weights_root": m.program.weights_root.hex(),
                       "tokenizer": m.tokenizer.id, "template": m.template_id}  # fmt: skip

    def _receipt(self, request: HttpRequest) -> bytes:
        raw = self.receipts.find(request.path_params["digest"])
        if raw is None:
            raise ApiError("there is no such receipt here", status=404)
        return raw

    async def receipt(self, request: HttpRequest) -> Response:
        return Response(self._receipt(request), media_type="application/json")

    async def verify(self, request: HttpRequest) -> Response:
        raw = self._receipt(request)
        return Json(await self.verifier.report(request, raw, self.services.values()))

    async def show_metrics(self, request: HttpRequest) -> Response:
        loads = {n: s.load_now for n, s in self.services.items()}
        gauges = {
            "answers_running": ("Answers under way.", [(n, x) for n, (x, _) in loads.items()]),
            "answers_waiting": (
                "Answers that wait for a slot.",
                [(n, x) for n, (_, x) in loads.items()],
            ),
            "slots": (
                "Answers that can be under way together.",
                [(n, s.slots) for n, s in self.services.items()],
            ),
        }
        return PlainTextResponse(self.metrics.text(gauges), media_type="text/plain; version=0.0.4")


def fingerprint(model: LanguageModel | EmbeddingModel) -> str:
    """A short name of the contract, the program and its weights: answers under one are the same bits."""
    program = model.program
    parts = program.graph.contract.encode(), program.program_hash, program.weights_root
    return f"ree_{hashlib.sha256(b''.join(parts)).hexdigest()[:16]}"


def _answers(
    service: ModelService,
    model: LanguageModel,
    wanted: Wanted,
    asked: Sequence[Request],
    seed: int,
    param: str,
) -> list[Completion]:
    """An answer for every choice of every prompt; ApiError for a prompt that leaves no room."""
    stop = () if wanted.ignore_eos else model.settings.stop
    stop = tuple(sorted({*stop, *wanted.stop_tokens}))
    grammar, echo = wanted.grammar, isinstance(wanted, CompletionRequest) and wanted.echo
    if isinstance(wanted, ChatRequest) and wanted.forced:
        grammar = _one_call(wanted, model)
    out = []
    for request in asked:
        for choice in range(wanted.choices):
            sampling = Sampling(wanted.temperature, wanted.top_p, wanted.min_p, wanted.top_k, seed, choice,
                                wanted.min_tokens, **wanted.penalties, bias=wanted.bias)  # fmt: skip
            most = service.positions if wanted.max_tokens is None else wanted.max_tokens
            full = replace(
                request, sampling=sampling, max_tokens=most, stop=wanted.stop, include_stop=wanted.include_stop,
                stop_tokens=stop, grammar=grammar, logprobs=wanted.logprobs,
                prompt_logprobs=echo and wanted.logprobs is not None, previous=wanted.previous,
                salt=wanted.salt,
            )  # fmt: skip
            try:
                sampling.check(
                    model.forward.vocabulary
                )  # of which the schema knows all but the tokens
            except InputError as e:
                raise ApiError.of(e, "logit_bias") from e
            try:
                answer = Completion(model, full)
                room = _room(answer, service, param)
                if full.max_tokens > room:  # as the receipt is to say it
                    answer = Completion(model, replace(full, max_tokens=room))
            except ApiError:
                raise
            except GrammarError as e:
                raise ApiError.of(e, wanted.form) from e
            except ReeError as e:
                raise ApiError.of(e, param) from e
            out.append(answer)
    return out


def _one_call(wanted: ChatRequest, model: LanguageModel) -> Grammar:
    """The grammar of a call of one of the tools that are asked for; ApiError if the form is not known."""
    if OPEN not in (model.template or ""):
        raise ApiError("the model's template has no form of calls that is known here: none can be forced",
                       "tool_choice", code="unsupported_value")  # fmt: skip
    tools = [t for t in wanted.tools or () if t["function"]["name"] in wanted.forced]
    return Grammar.calls(OPEN, CLOSE, tools, model.tokenizer.encode)


def _room(answer: Completion, service: ModelService, param: str) -> int:
    """How many tokens there is room for behind the prompt; what the scheduler would refuse is refused here."""
    given, most = len(answer.generation.prompt), service.positions
    if given >= most:
        raise ApiError(
            f"the prompt has {given} tokens, prompt and answer together may have {most}", param,
            code="context_length_exceeded",
        )  # fmt: skip
    if not given:
        raise ApiError("the prompt has no tokens", param)
    answer.generation.text().check(answer.model.forward.vocabulary)
    return most - given


def _echoed(wanted: Wanted, answers: Sequence[Completion], model: LanguageModel) -> list[str]:
    """The text of the prompt of every choice, where completions are to repeat it."""
    if not isinstance(wanted, CompletionRequest) or not wanted.echo:
        return []
    given = [
        p if isinstance(p, str) else model.tokenizer.decode(p, skip_special=False)
        for p in wanted.prompts
    ]
    return [given[i // wanted.choices] for i in range(len(answers))]


def _callable(wanted: Wanted, model: LanguageModel) -> frozenset[str]:
    """Names of the tools that may be called, if the model's template has the form of calls that is known."""
    if (
        not isinstance(wanted, ChatRequest)
        or not wanted.tools
        or OPEN not in (model.template or "")
    ):
        return frozenset()
    return frozenset(t["function"]["name"] for t in wanted.tools)


async def _all(running: Running, reply: Reply) -> None:
    """Wait for every answer of a reply; ApiError if one fails."""
    async for places in running.places():
        for index, event in places:
            if isinstance(event, Failed):
                raise _failure(event)
            if not isinstance(event, TextPiece):
                reply.receipts[index] = event.receipt.digest.hex()


async def _chunks(running: Running, reply: Reply) -> AsyncGenerator[list[Any], None]:
    """The events of a stream, those that come together in one list; an error in the middle is the last."""
    yield reply.opening()
    held = [TextSoFar(bool(reply.tools)) for _ in reply.answers]
    every = reply.wanted.return_tokens or reply.wanted.logprobs is not None
    async for places in running.places(PATIENCE):
        out: list[Any] = [] if places else [None]
        for index, event in places:
            if isinstance(event, Failed):
                yield [*out, _failure(event).body()]
                return
            if isinstance(event, TextPiece):
                told = held[index].take(event, every)
                if told is not None:
                    out.append(reply.piece(index, *told))
            else:
                reply.receipts[index] = event.receipt.digest.hex()
                out += reply.ending(index, held[index].told)
        yield out
    if reply.wanted.include_usage:
        yield [reply.usage_chunk()]


def _failure(event: Failed) -> ApiError:
    e = event.error
    if isinstance(e, ApiError):
        return e
    return ApiError(e.message, status=500 if isinstance(e, InternalError) else 400)


def _warning(unknown: Sequence[str]) -> dict[str, str]:
    """The header that says which fields are not known."""
    return {"Warning": f'299 ree "ignored: {_header_text(", ".join(unknown))}"'} if unknown else {}


def _header_text(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in text)[
        :500
    ]
