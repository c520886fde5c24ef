"""One vLLM engine (V1) with vLLM's own OpenAI application in front of it.

vLLM is taken as it is: its argument parser, its engine client, its routes. What
a replica adds (admission, drain, announcements) stays outside, so that the
whole API surface of vLLM is there and an upgrade changes one module.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from starlette.types import ASGIApp

from trierarch.core.errors import InvalidInput
from trierarch.settings.engine import first_port


class Engine(Protocol):
    """What a replica needs of an engine."""

    @property
    def app(self) -> ASGIApp:
        """The engine's HTTP surface."""
        ...

    @property
    def max_model_tokens(self) -> int:
        """Longest prompt plus answer."""
        ...

    async def check_health(self) -> None:
        """Return if the engine can serve.

        Raises:
            Exception: Of the engine, if it cannot.
        """
        ...

    def attach_server(self, server: Any) -> None:
        """Tell the application which server carries it."""
        ...

    async def close(self) -> None:
        """End the engine and its processes."""
        ...


class VllmEngine:
    """An engine that serves; made by ``start``.

    Attributes:
        app: vLLM's application.
        max_model_tokens: Longest prompt plus answer, as vLLM settled it.
    """

    def __init__(self, client: Any, app: Any, max_model_tokens: int) -> None:
        self._client = client
        self._lifespan = app.router.lifespan_context(app)
        self.app: Any = app
        self.max_model_tokens = max_model_tokens

    @classmethod
    async def start(cls, arguments: Sequence[str], first_group_port: int = 0) -> VllmEngine:
        """Load the model and return when the engine can serve.

        Blocks the running loop while weights are loaded, as vLLM's own server does.

        Args:
            arguments: vLLM's command line, from ``build_vllm_arguments``.
            first_group_port: As in ``Rendezvous``.

        Raises:
            InvalidInput: If vLLM does not know an option.
        """
        # Importing vLLM takes seconds and much memory; only a process that runs an engine does.
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        options = parse_vllm_arguments(arguments)
        engine_arguments = AsyncEngineArgs.from_cli_args(options)
        with first_port(first_group_port):
            config = engine_arguments.create_engine_config(
                usage_context=UsageContext.OPENAI_API_SERVER
            )
        client = AsyncLLM.from_vllm_config(
            config,
            usage_context=UsageContext.OPENAI_API_SERVER,
            disable_log_stats=engine_arguments.disable_log_stats,
        )
        try:
            tasks = await client.get_supported_tasks()
            app = build_app(options, tasks, client.model_config)
            await init_app_state(client, app.state, options, tasks)
        except BaseException:
            client.shutdown()
            raise
        engine = cls(client, app, int(config.model_config.max_model_len))
        await engine._lifespan.__aenter__()
        return engine

    async def check_health(self) -> None:
        """Return if the engine's processes live.

        Raises:
            EngineDeadError: If they do not.
        """
        await self._client.check_health()

    def attach_server(self, server: Any) -> None:
        """Tell vLLM's error handlers which server to end when the engine is dead."""
        self.app.state.server = server

    async def close(self) -> None:
        """End the engine's processes."""
        try:
            await self._lifespan.__aexit__(None, None, None)
        finally:
            self._client.shutdown()


def parse_vllm_arguments(arguments: Sequence[str]) -> Any:
    """Return vLLM's namespace for ``vllm serve``.

    Raises:
        InvalidInput: If vLLM does not know an option or refuses a value.
    """
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = make_arg_parser(FlexibleArgumentParser(exit_on_error=False))
    try:
        options = parser.parse_args(list(arguments))
        validate_parsed_serve_args(options)
    except SystemExit as ended:
        raise InvalidInput(f"vLLM refuses its options: {' '.join(arguments)}") from ended
    return options
