"""Who may do what, and what is told when something is wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from gaitfleet.client import ReplayClient
from gaitfleet.errors import ForbiddenError, LeaseLostError
from replay_api.authentication import TokenBook
from replay_api.errors import ForbiddenError as TokenForbiddenError
from replay_api.errors import UnauthorizedError
from replay_api.settings import Settings
from tests.conftest import serve
from tests.replay_api.fleet import Fleet

TOKENS = {role: f"{role}-token-0123456789" for role in ("rollout", "trainer", "reader", "admin")}


@pytest.fixture(scope="module")
def guarded(mongodb_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An application with one token for each role, and a second one for rollouts."""
    settings = Settings(
        authentication="token",
        mongodb_uri=mongodb_uri,
        mongodb_database="test-access",
        checkpoint_store=f"directory:{tmp_path_factory.mktemp('access')}",
        rollout_tokens=f"{TOKENS['rollout']}, rollout-token-of-tomorrow",
        trainer_tokens=TOKENS["trainer"],
        reader_tokens=TOKENS["reader"],
        admin_tokens=TOKENS["admin"],
    )
    with serve(settings) as url:
        yield url


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


ALLOWED = {
    ("GET", ""): {"rollout", "trainer", "reader"},
    ("GET", "/status"): {"rollout", "trainer", "reader"},
    ("POST", "/episodes"): {"rollout"},
    ("GET", "/episodes"): {"rollout", "trainer", "reader"},
    ("POST", "/batches"): {"trainer"},
    ("POST", "/priorities"): {"trainer"},
    ("GET", "/policy"): {"rollout", "trainer", "reader"},
    ("POST", "/lease"): {"trainer"},
    ("DELETE", "/lease"): {"trainer"},
    ("PUT", "/checkpoints/1"): {"trainer"},
    ("GET", "/checkpoints"): {"rollout", "trainer", "reader"},
    ("GET", "/checkpoints/1"): {"trainer", "reader"},
    ("GET", "/limits"): {"rollout", "trainer", "reader"},
    ("PATCH", "/limits"): set[str](),
    ("GET", "/events"): {"rollout", "trainer", "reader"},
    ("PUT", "/workers/w"): {"rollout"},
    ("DELETE", "/workers/w"): {"rollout"},
    ("PUT", ""): set[str](),
}


@pytest.mark.parametrize(("method", "path"), list(ALLOWED))
def test_every_role_may_do_what_the_contract_says(guarded: str, method: str, path: str) -> None:
    with httpx.Client(base_url=guarded) as client:
        target = f"/v1/runs/access{path}"
        assert client.request(method, target).status_code == 401
        wrong = client.request(method, target, headers={"Authorization": "Bearer nobody-knows-this-one"})
        assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")
        for role in TOKENS:
            answer = client.request(method, target, headers=bearer(role))
            refused = role not in ALLOWED[method, path] | {"admin"}
            assert (answer.status_code == 403) == refused, (role, answer.text)


def test_two_tokens_of_a_role_are_valid_at_once(guarded: str) -> None:
    for token in (TOKENS["rollout"], "rollout-token-of-tomorrow"):
        answer = httpx.get(f"{guarded}/v1/runs", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200


def test_a_wrong_token_is_told_as_a_problem_that_does_not_repeat_it(guarded: str) -> None:
    answer = httpx.get(f"{guarded}/v1/runs", headers={"Authorization": "Bearer nobody-knows-this-one"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:gaitfleet:problem:unauthorized",
        "title": "Not authenticated",
        "status": 401,
        "detail": "the bearer token is not known here",
        "reason": "unknown_token",
    }


def test_no_token_is_ever_logged(guarded: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        httpx.get(f"{guarded}/v1/runs", headers=bearer("admin"))
        httpx.post(f"{guarded}/v1/runs/access/batches", headers=bearer("trainer"), json={"batch_size": 0})
    server_lines = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert not any("token-0123456789" in line for line in server_lines)


def test_tokens_in_files_are_rotated_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trainer").write_text("the-old-trainer-token\n")
    book = TokenBook(Settings(authentication="token", token_directory=tmp_path))
    trainer = frozenset({"trainer"})
    book.check("Bearer the-old-trainer-token", trainer)
    with pytest.raises(TokenForbiddenError):
        book.check("Bearer the-old-trainer-token", frozenset({"rollout"}))
    (tmp_path / "trainer").write_text("the-new-trainer-token\nthe-old-trainer-token\n")
    monkeypatch.setattr("replay_api.authentication.REREAD_SECONDS", -1.0)
    for token in ("old", "new"):
        book.check(f"Bearer the-{token}-trainer-token", trainer)
    (tmp_path / "trainer").write_text("the-new-trainer-token\n")
    with pytest.raises(UnauthorizedError):
        book.check("Bearer the-old-trainer-token", trainer)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "replay-api"])
def test_without_authentication_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(ValidationError, match="host must be a loopback address"):
        Settings(authentication="none", host=host)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "elsewhere.example:8080"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "127.0.0.1.elsewhere.example"}, 403),
        ({"Host": "localhost:8080", "Origin": "http://127.0.0.1:3000"}, 200),
        ({"Host": "[::1]:8080"}, 200),
    ],
    ids=str,
)
def test_without_authentication_pages_of_other_sites_are_refused(
    fleet: Fleet, guarded: str, headers: dict[str, str], status: int
) -> None:
    answer = fleet.http.post(f"{fleet.path}/lease", json={"holder": "page"}, headers=headers)
    assert answer.status_code == status
    assert (fleet.status()["lease"] is None) == (status == 403)
    assert httpx.get(f"{guarded}/v1/runs", headers=bearer("reader") | headers).status_code == 200


def test_it_does_not_start_without_tokens_unless_told_so() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "replay_api"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "authentication is token but there is no token" in ended.stderr
    with pytest.raises(ValidationError, match="a token has 5 characters, needs 16"):
        Settings(reader_tokens="short")


def test_every_error_is_a_problem_document(fleet: Fleet) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("DELETE", "/v1/runs", 405),
        ("GET", "/v1/runs/NOT-A-LABEL", 422),
        ("POST", f"{fleet.path}/batches", 422),
        ("GET", f"{fleet.path}/episodes?limit=0", 422),
        ("GET", f"{fleet.path}/episodes/not-a-uuid", 422),
        ("GET", f"{fleet.path}/checkpoints/newer", 422),
    ):
        answer = fleet.http.request(method, path)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= answer.json().keys()
    unknown = fleet.sample(batch_sise=3)
    assert unknown.json()["detail"].startswith("batch_sise: ")
    never = fleet.sample(batch_size=60_000, batches=2)
    assert never.status_code == 429
    too_large = fleet.http.post(f"{fleet.path}/lease", content=b'{"holder": "' + b"x" * (5 << 20) + b'"}')
    assert (too_large.status_code, too_large.json()["reason"]) == (413, "too_large")


def test_an_internal_error_tells_nothing_of_its_inside(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret of the inside")

    with serve(settings) as url, Fleet(url) as fleet:
        monkeypatch.setattr("replay_api.handlers.runs.status_of", fail)
        answer = fleet.get("/status")
    assert answer.status_code == 500
    assert answer.json() == {
        "type": "urn:gaitfleet:problem:internal",
        "title": "Internal error",
        "status": 500,
        "detail": "something went wrong here; it is in the log",
    }


def test_the_published_description_describes_everything(api: str) -> None:
    description = httpx.get(f"{api}/openapi.json").json()
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation.get("summary"), (method, path)
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), (method, path, parameter["name"])
            if path.startswith("/v1/"):
                assert {"401", "403", "503"} <= operation["responses"].keys(), (method, path)
                for status, answer in operation["responses"].items():
                    if status >= "400":
                        assert list(answer["content"]) == ["application/problem+json"], (method, path, status)


def test_no_page_is_served_that_loads_scripts_from_elsewhere(api: str) -> None:
    for path in ("/docs", "/docs/oauth2-redirect", "/redoc"):
        assert httpx.get(api + path).status_code == 404, path


def test_metrics_have_bounded_labels(fleet: Fleet) -> None:
    fleet.post(fleet.play())
    fleet.batches()
    fleet.http.get("/v1/runs/does-not-exist/status")
    text = fleet.http.get("/metrics").text
    run = f'run_id="{fleet.run}"'
    for line in (
        f"rl_replay_items{{{run}}} 30.0",
        f"rl_replay_inserted_items_total{{{run}}} 30.0",
        f"rl_replay_sampled_items_total{{{run}}} 16.0",
        f'rl_replay_inserted_steps_total{{role="random",{run}}} 30.0',
    ):
        assert line in text
    assert 'route="/v1/runs/{run}/episodes"' in text
    assert "does-not-exist" not in text
    assert 'rl_mongo_command_duration_seconds_count{command="insert"}' in text


def test_the_client_library_speaks_to_it(guarded: str) -> None:
    with ReplayClient(guarded, run="client", token=TOKENS["admin"]) as admin:
        experiment = Fleet(guarded, **bearer("admin")).experiment
        admin.create_run(experiment)
    with ReplayClient(guarded, run="client", token=TOKENS["trainer"]) as trainer:
        assert trainer.get_policy() is None
        assert trainer.download_checkpoint() is None
        lease = trainer.acquire_lease("trainer-a", ttl_seconds=30)
        with pytest.raises(LeaseLostError):
            trainer.acquire_lease("trainer-b", ttl_seconds=30)
        trainer.release_lease(lease.epoch)
        with pytest.raises(ForbiddenError):
            trainer.post_episode(b"x")


def test_it_never_imports_torch_or_opensim() -> None:
    code = "import replay_api.__main__, sys; print(sorted({'torch', 'opensim'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
