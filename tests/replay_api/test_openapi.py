"""The whole OpenAPI document against a real server: generated requests, good and bad, with and without tokens.

Every answer must be one that the document names, with its media type and its schema, and none a 5xx. A longer form
(`make test-fuzz`) makes more requests of the same kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from gaitfleet.identity import RUN_PATTERN
from replay_api.handlers.bodies import SAFETENSORS
from replay_api.main import create_app
from replay_api.settings import Settings
from tests.conftest import serve, settings_for
from tests.replay_api.fleet import Fleet

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
"""Hypothesis believes that the server's thread, which draws numbers meanwhile, is the strategy."""

TOKENS = {role: f"{role}-token-0123456789" for role in ("rollout", "trainer", "reader", "admin")}
EXAMPLES = int(os.environ.get("GAITFLEET_TEST_FUZZ_EXAMPLES", "12"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]

schemathesis.serializer.alias(SAFETENSORS, "application/octet-stream")
DOCUMENT = schemathesis.openapi.from_dict(create_app(Settings(authentication="none")).openapi())
OPERATIONS = [(method, path) for path, item in DOCUMENT.raw_schema["paths"].items() for method in item]

requests = hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 100,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def played(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, str]]:
    """A run with episodes, a lease and a checkpoint on a server that demands tokens, and the id of an episode."""
    tokens: dict[str, Any] = {f"{role}_tokens": token for role, token in TOKENS.items()}
    settings = settings_for(mongodb_uri, tmp_path_factory.mktemp("openapi"), authentication="token", **tokens)
    with serve(settings) as url, Fleet(url, Authorization=f"Bearer {TOKENS['admin']}") as fleet:
        episode = fleet.play()
        assert fleet.post(episode).status_code == 201
        assert fleet.publish(1, fleet.lease().json()["epoch"]).status_code == 201
        yield fleet, str(episode.metadata.episode_id)


def aimed(case: schemathesis.Case, fleet: Fleet, episode_id: str) -> schemathesis.Case:
    """The case with valid names replaced by those of things that are there, and without waiting."""
    parameters = case.path_parameters
    creates = (case.method, case.path) == ("PUT", "/v1/runs/{run}")
    if not creates and re.fullmatch(RUN_PATTERN, str(parameters.get("run", ""))):
        parameters["run"] = fleet.run
    if len(str(parameters.get("episode_id", ""))) == 36:
        parameters["episode_id"] = episode_id
    case.query.pop("wait", None)
    address = urlencode(case.query, doseq=True)
    hypothesis.assume(len(address) < 60_000)  # the HTTP parser itself refuses more than 64 KiB, with a plain 400
    if isinstance(case.body, dict) and case.body.get("wait_seconds") != "":
        case.body |= {"wait_seconds": 0}
    return case


@DOCUMENT.parametrize()
@requests
def test_every_answer_is_one_that_the_document_names(case: schemathesis.Case, played: tuple[Fleet, str]) -> None:
    fleet, episode_id = played
    headers = {"Authorization": f"Bearer {TOKENS['admin']}"}
    aimed(case, fleet, episode_id).call_and_validate(base_url=fleet.url, headers=headers, checks=CHECKS)


@pytest.mark.parametrize("authorization", ["", "Bearer nobody-knows-this-one", f"Basic {TOKENS['admin']}"])
def test_without_a_known_token_every_answer_is_401_and_nothing_is_told(
    played: tuple[Fleet, str], authorization: str
) -> None:
    fleet, episode_id = played
    names = {"run": fleet.run, "episode_id": episode_id, "worker": "w", "step": 1, "which": "newest"}
    asked = [(method, path.format(**names)) for method, path in OPERATIONS if path.startswith("/v1/")]
    assert len(asked) > 20
    with httpx.Client(base_url=fleet.url, headers={"Authorization": authorization}) as client:
        for method, path in asked:
            answer = client.request(method, path, content=b"{}")
            assert answer.status_code == 401, (method, path)
            assert fleet.run not in answer.text
