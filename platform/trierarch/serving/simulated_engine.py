"""An engine with a clock and no weights, behind vLLM's OpenAI surface.

For tests, benchmarks and trying the platform without a model. It batches
continuously as vLLM does: a step gives every running sequence one token, prompts
are worked off when they enter the batch, and what does not fit waits. What a
step and a prompt token cost is stated on the command line, so its times are a
model's, not a machine's. Answers, errors, usage and metric names follow vLLM
0.32; a token is a word, the text is chosen by the prompt's hash, and sampling
options are accepted without effect.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import json
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

import uvicorn
from prometheus_client import generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trierarch.core.clock import Clock, SystemClock
from trierarch.serving.simulated_scheduler import (
    EngineMetrics,
    Generation,
    ServiceModel,
    SimulatedScheduler,
)

WORDS = (
    "the", "rowers", "pull", "as", "one", "and", "the", "ship", "answers", "under", "a", "steady",
    "wind", "toward", "that", "harbour", "where", "light", "burns", "all", "night", "for", "home",
)  # fmt: skip

CHAT_TEMPLATE_TOKENS = 4
"""What a chat template adds to each message."""


class EngineRefusal(Exception):
    """An error as vLLM words it.

    Attributes:
        status: HTTP status, which is also the error's code.
        kind: vLLM's error type.
        param: Field, or None.
    """

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param

    def as_response(self) -> Response:
        """Return vLLM's error body."""
        error = {
            "message": str(self),
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return JSONResponse({"error": error}, status_code=self.status)


def _pick_words(prompt: Sequence[str], choice: int) -> Callable[[int], str]:
    seed = hashlib.sha256(f"{choice} {' '.join(prompt)}".encode()).digest()
    return lambda position: WORDS[(seed[position % 32] + position) % len(WORDS)]


def _chat_words(messages: object) -> list[str]:
    if not isinstance(messages, list):
        raise _missing("messages")
    words: list[str] = []
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        parts = content if isinstance(content, list) else [{"text": content or ""}]
        for part in parts:
            words += str(part.get("text", "")).split() if isinstance(part, dict) else []
        words += [""] * CHAT_TEMPLATE_TOKENS
    return words


def _prompts(prompt: object) -> list[list[str]]:
    if isinstance(prompt, str):
        return [prompt.split() or [""]]
    if isinstance(prompt, list) and prompt:
        if isinstance(prompt[0], int):
            return [[str(token) for token in prompt]]
        return [words for part in prompt for words in _prompts(part)]
    raise _missing("prompt")


def _missing(field: str) -> EngineRefusal:
    detail = {"type": "missing", "loc": f"body.{field}", "msg": "Field required"}
    message = f"1 validation error:\n  {detail}"
    return EngineRefusal(400, "Bad Request", message, f"body.{field}")


class SimulatedEngine:
    """The HTTP surface."""

    def __init__(self, model: str, service: ServiceModel, clock: Clock) -> None:
        self._model = model
        self._service = service
        self._clock = clock
        self._metrics = EngineMetrics(model)
        self._scheduler = SimulatedScheduler(service, self._metrics, clock)
        self._created = itertools.repeat(int(clock.unix_seconds()))

    def build_app(self, announce: Callable[[], None] = lambda: None) -> Starlette:
        """Return the ASGI application; it calls ``announce`` when it can serve."""

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            task = asyncio.create_task(self._scheduler.run())
            asyncio.get_running_loop().call_later(0.0, announce)
            yield
            task.cancel()

        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._guard(self._chat), methods=["POST"]),
                Route("/v1/completions", self._guard(self._complete), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/health", self._health),
                Route("/metrics", self._show_metrics),
            ],
            lifespan=lifespan,
        )

    def _guard(
        self, answer: Callable[[Request, dict[str, Any]], Coroutine[Any, Any, Response]]
    ) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def guarded(request: Request) -> Response:
            try:
                return await answer(request, await self._read(request))
            except EngineRefusal as refusal:
                return refusal.as_response()

        return guarded

    async def _read(self, request: Request) -> dict[str, Any]:
        try:
            body = json.loads(await request.body())
        except ValueError as error:
            raise EngineRefusal(400, "Bad Request", f"1 validation error:\n  {error}") from error
        if not isinstance(body, dict):
            raise _missing("messages")
        model = body.get("model")
        if model and model != self._model:
            message = f"The model `{model}` does not exist."
            raise EngineRefusal(404, "NotFoundError", message, "model")
        if body.get("stream_options") and not body.get("stream"):
            message = "Stream options can only be defined when `stream=True`."
            raise EngineRefusal(400, "Bad Request", message, "stream_options")
        return body

    async def _models(self, _request: Request) -> Response:
        card = {
            "id": self._model,
            "object": "model",
            "created": next(self._created),
            "owned_by": "vllm",
            "root": self._model,
            "parent": None,
            "max_model_len": self._service.max_model_tokens,
            "permission": [],
        }
        return JSONResponse({"object": "list", "data": [card]})

    async def _health(self, _request: Request) -> Response:
        return Response(status_code=200)

    async def _show_metrics(self, _request: Request) -> Response:
        return Response(generate_latest(self._metrics.registry), media_type="text/plain")

    async def _chat(self, request: Request, body: dict[str, Any]) -> Response:
        maximum = body.get("max_completion_tokens") or body.get("max_tokens")
        name = "max_completion_tokens" if body.get("max_completion_tokens") else "max_tokens"
        output_tokens = maximum or self._service.default_output_tokens
        prompt = _chat_words(body.get("messages"))
        return await self._answer(request, body, "chatcmpl", [prompt], output_tokens, name)

    async def _complete(self, request: Request, body: dict[str, Any]) -> Response:
        maximum = body.get("max_tokens")
        output_tokens = 16 if maximum is None else maximum
        prompts = _prompts(body.get("prompt"))
        return await self._answer(request, body, "cmpl", prompts, output_tokens, "max_tokens")

    def _check_lengths(self, prompt_tokens: int, output_tokens: int, name: str) -> int:
        """Return how many tokens fit, worded as vLLM does if none does."""
        limit = self._service.max_model_tokens
        if output_tokens > limit:
            message = (
                f"{name}={output_tokens} cannot be greater than max_model_len={limit}."
                f" Please request fewer output tokens. (parameter={name}, value={output_tokens})"
            )
            raise EngineRefusal(400, "BadRequestError", message, name)
        if prompt_tokens >= limit:
            message = (
                f"This model's maximum context length is {limit} tokens. However, your prompt"
                f" contains {prompt_tokens} input tokens, which exceeds this limit even without"
                " any output tokens. Please reduce the length of the input prompt."
                f" (parameter=input_tokens, value={prompt_tokens})"
            )
            raise EngineRefusal(400, "BadRequestError", message, "input_tokens")
        return min(output_tokens, limit - prompt_tokens)

    async def _answer(
        self,
        request: Request,
        body: dict[str, Any],
        prefix: str,
        prompts: Sequence[Sequence[str]],
        output_tokens: int,
        max_tokens_name: str,
    ) -> Response:
        lengths = [self._check_lengths(len(p), output_tokens, max_tokens_name) for p in prompts]
        # Without a maximum the simulated model has said what it wanted to say.
        has_maximum = any(body.get(name) for name in ("max_completion_tokens", "max_tokens"))
        finish_reason = "length" if has_maximum or prefix == "cmpl" else "stop"
        name = request.headers.get("x-request-id") or secrets.token_hex(16)
        answer = _Answer(
            scheduler=self._scheduler,
            envelope={
                "id": f"{prefix}-{name}",
                "created": int(self._clock.unix_seconds()),
                "model": self._model,
            },
            is_chat=prefix == "chatcmpl",
            generations=[
                self._scheduler.submit(words, length, finish_reason)
                for words, length in zip(prompts, lengths, strict=True)
                for _ in range(body.get("n") or 1)
            ],
            choices_per_prompt=body.get("n") or 1,
        )
        headers = {"x-request-id": name}
        if not body.get("stream"):
            return JSONResponse(await answer.whole(request), headers=headers)
        options = body.get("stream_options") or {}
        return StreamingResponse(
            answer.events(
                include_usage=bool(options.get("include_usage")),
                continuous=bool(options.get("continuous_usage_stats")),
            ),
            media_type="text/event-stream",
            headers=headers,
        )


def _usage(prompt_tokens: int, output_tokens: int, **details: object) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
        **details,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """Generations of one request on their way to the client."""

    scheduler: SimulatedScheduler
    envelope: Mapping[str, Any]
    is_chat: bool
    generations: Sequence[Generation]
    choices_per_prompt: int

    def _final_usage(self) -> dict[str, Any]:
        firsts = self.generations[:: self.choices_per_prompt]
        return _usage(
            sum(len(generation.words) for generation in firsts),
            sum(generation.generated_tokens for generation in self.generations),
            prompt_tokens_details={"cached_tokens": sum(g.cached_tokens for g in firsts)},
        )

    async def whole(self, request: Request) -> dict[str, Any]:
        """Return the complete answer; stop the work if the client leaves before."""
        gone = asyncio.create_task(_client_gone(request))
        done = asyncio.create_task(self._wait_for_end())
        try:
            await asyncio.wait([gone, done], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            done.cancel()
            for generation in self.generations:
                self.scheduler.abort(generation)
        choices = []
        for index, generation in enumerate(self.generations):
            pick = _pick_words(generation.words, index)
            text = " ".join(pick(position) for position in range(generation.generated_tokens))
            choice: dict[str, Any] = {"index": index}
            if self.is_chat:
                choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            else:
                choice["text"] = text
            choice |= {
                "logprobs": None,
                "finish_reason": generation.finish_reason,
                "stop_reason": None,
            }
            choices.append(choice)
        return {
            **self.envelope,
            "object": "chat.completion" if self.is_chat else "text_completion",
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": None,
            "usage": self._final_usage(),
            "kv_transfer_params": None,
        }

    async def _wait_for_end(self) -> None:
        for generation in self.generations:
            while await generation.produced.get():
                pass

    async def events(self, *, include_usage: bool, continuous: bool) -> AsyncIterator[str]:
        """Yield server-sent events in vLLM's order; stop the work if the client leaves."""
        continuous = continuous and include_usage
        ready: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        pumps = [
            asyncio.create_task(_pump(generation, index, ready))
            for index, generation in enumerate(self.generations)
        ]
        try:
            running = len(self.generations)
            greeted = not self.is_chat
            while running:
                index, count = await ready.get()
                if not greeted:
                    greeted = True
                    for choice in range(len(self.generations)):
                        yield self._event(choice, 0, continuous)
                if count == 0:
                    running -= 1
                    continue
                generation = self.generations[index]
                yield self._event(index, count, continuous, generation)
            if include_usage:
                yield self._dump([], self._final_usage())
            yield "data: [DONE]\n\n"
        finally:
            for pump in pumps:
                pump.cancel()
            for generation in self.generations:
                self.scheduler.abort(generation)

    def _event(
        self, index: int, position: int, continuous: bool, generation: Generation | None = None
    ) -> str:
        words = self.generations[index].words
        is_last = generation is not None and position >= generation.output_tokens
        text = ""
        if generation is not None:
            word = _pick_words(words, index)(position - 1)
            text = word if position == 1 else " " + word
        choice: dict[str, Any] = {"index": index}
        if self.is_chat:
            delta = {"content": text} if generation else {"role": "assistant", "content": ""}
            choice["delta"] = delta
        else:
            choice["text"] = text
        reason = generation.finish_reason if generation is not None and is_last else None
        choice |= {"logprobs": None, "finish_reason": reason}
        return self._dump([choice], _usage(len(words), position) if continuous else None)

    def _dump(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> str:
        chunk = {
            "id": self.envelope["id"],
            "object": "chat.completion.chunk" if self.is_chat else "text_completion",
            "created": self.envelope["created"],
            "model": self.envelope["model"],
            "choices": choices,
        }
        if usage is not None:
            chunk["usage"] = usage
        return f"data: {json.dumps(chunk, separators=(',', ':'), ensure_ascii=False)}\n\n"


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _pump(generation: Generation, index: int, ready: asyncio.Queue[tuple[int, int]]) -> None:
    position = 0
    while await generation.produced.get():
        position += 1
        ready.put_nowait((index, position))
    ready.put_nowait((index, 0))


def read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trierarch.serving.simulated_engine", description=__doc__.split("\n")[0]
    )
    defaults = ServiceModel()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--model", default="simulated", help="served model name")
    parser.add_argument("--max-batch", type=int, default=defaults.max_batch)
    parser.add_argument("--max-model-tokens", type=int, default=defaults.max_model_tokens)
    parser.add_argument("--default-output-tokens", type=int, default=defaults.default_output_tokens)
    parser.add_argument("--step-seconds", type=float, default=defaults.step_seconds)
    parser.add_argument(
        "--step-seconds-per-sequence", type=float, default=defaults.step_seconds_per_sequence
    )
    parser.add_argument(
        "--prefill-seconds-per-token", type=float, default=defaults.prefill_seconds_per_token
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Serve until ended; print the address when it listens."""
    options = read_arguments(arguments)
    service = ServiceModel(
        prefill_seconds_per_token=options.prefill_seconds_per_token,
        step_seconds=options.step_seconds,
        step_seconds_per_sequence=options.step_seconds_per_sequence,
        max_batch=options.max_batch,
        max_model_tokens=options.max_model_tokens,
        default_output_tokens=options.default_output_tokens,
    )
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
        listener.listen(1024)
    except OSError as error:
        sys.stderr.write(
            f"simulated engine: cannot listen on {options.host}:{options.port}: {error.strerror}\n"
        )
        return 2
    port = listener.getsockname()[1]

    def announce() -> None:
        sys.stdout.write(f"simulated engine listens on http://{options.host}:{port}\n")
        sys.stdout.flush()

    app = SimulatedEngine(options.model, service, SystemClock()).build_app(announce)
    config = uvicorn.Config(app, log_level="warning", access_log=False, loop="uvloop")
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
