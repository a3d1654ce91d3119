"""``python -m replay_api``: one worker process, uvloop and httptools."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from gaitfleet.logs import configure_logging
from replay_api.handlers.protocol import BoundedProtocol
from replay_api.interpreter import tune
from replay_api.main import create_app
from replay_api.settings import from_environment

_log = logging.getLogger("replay_api")


class _Server(uvicorn.Server):
    """Ends every wait (long polls, the limiter) as soon as the signal arrives, so that draining takes no minute."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's, but the signal is not raised again after an orderly end: that is a success."""
        end_waits = getattr(self._app.state, "end_waits", None)
        if end_waits is not None:
            end_waits()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    try:
        settings = from_environment()
    except ValidationError as error:
        for item in error.errors():
            field = ".".join(str(part) for part in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            sys.stderr.write(f"gaitfleet-replay-api: {field or 'settings'}: {message}\n")
        return 2
    configure_logging("replay-api", settings.log_level)
    _log.debug("settings", extra={"settings": settings.model_dump(mode="json")})  # secrets as asterisks
    if settings.authentication == "none":
        _log.warning("authentication is off: everybody on this machine may do everything")
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=BoundedProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        timeout_keep_alive=75,
        server_header=False,
    )
    config.load()
    app.openapi()  # builds the routes, too; the first request for either would stop the event loop for 20 and 200 ms
    tune()
    server = _Server(config, app)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
