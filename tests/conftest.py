"""A real database process, real applications, and episodes to post.

The database is SecantusDB, which speaks MongoDB's wire protocol; with `GAITFLEET_TEST_MONGODB_URI` the same tests run
against any other server.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from replay_api.handlers.protocol import BoundedProtocol
from replay_api.main import create_app
from replay_api.settings import Settings
from tests.replay_api.fleet import Fleet
from tests.servers import CREDENTIALS, Database, ObjectServer, new_bucket


@pytest.fixture(scope="session")
def mongodb_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the shared database is."""
    given = os.environ.get("GAITFLEET_TEST_MONGODB_URI")
    if given:
        yield given
        return
    database = Database(tmp_path_factory.mktemp("database"))
    yield database.uri
    database.kill()


def settings_for(mongodb_uri: str, directory: Path, **changes: Any) -> Settings:
    """Settings with a database name and a checkpoint directory of their own, and no authentication."""
    known: dict[str, Any] = {
        "authentication": "none",
        "mongodb_uri": mongodb_uri,
        "mongodb_database": f"test-{uuid.uuid4().hex[:12]}",
        "checkpoint_store": f"directory:{directory / 'checkpoints'}",
    }
    return Settings(**known | changes)


@pytest.fixture
def settings(mongodb_uri: str, tmp_path: Path) -> Settings:
    """Settings for a test that serves its own application."""
    return settings_for(mongodb_uri, tmp_path)


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    """The application on a loopback port, in a thread of this process; gives its base URL."""
    app = create_app(settings)
    config = uvicorn.Config(
        app, port=0, http=BoundedProtocol, loop="uvloop", log_level="warning", timeout_graceful_shutdown=3
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 15
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline, "the application did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        while not httpx.get(f"{url}/health/ready").is_success:
            assert time.monotonic() < deadline, "the application did not become ready"
            time.sleep(0.05)
        yield url
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive(), "the application does not end"


@pytest.fixture(scope="session")
def api(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of an application that tests share; each has runs of its own."""
    with serve(settings_for(mongodb_uri, tmp_path_factory.mktemp("api"))) as url:
        yield url


@pytest.fixture
def fleet(api: str) -> Iterator[Fleet]:
    """A Pendulum run on the shared application, with what plays and trains."""
    with Fleet(api) as made:
        yield made


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """Credentials where every AWS client looks for them."""
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def moto(s3_credentials: None) -> Iterator[dict[str, Any]]:
    """Settings for a bucket of moto's in-memory S3."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield new_bucket(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def seaweedfs(s3_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Settings for a bucket of a SeaweedFS process, an S3 server that keeps what it acknowledges."""
    server = ObjectServer(tmp_path_factory.mktemp("seaweedfs"))
    yield server.bucket
    server.kill()
