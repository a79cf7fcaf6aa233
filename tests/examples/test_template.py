"""The project template of the manual: its roles, commands and service, on a real PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any, Final

import pytest
from agents import Agent
from httpx import ASGITransport, AsyncClient, Client

from agents_eventlog.testing import ScriptedModel, reply
from tests.manual import ROOT, page
from tests.postgres import raw

if TYPE_CHECKING:
    from tests.postgres import Server

yaml = pytest.importorskip("yaml", reason="the extra `docs` is not installed")

TEMPLATE: Final = page("operations/template")
KEY: Final = "k" * 32


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the compose file."""
    [code] = TEMPLATE.code("yaml")
    found: dict[str, Any] = yaml.safe_load(code)["services"]
    return found


@pytest.fixture
def urls(server: Server) -> dict[str, str]:
    """A new log as the owner and as the application's role, by the URLs of the compose file."""
    role, owner = f"app_{uuid.uuid4().hex}", server.url()
    [script] = [code for code in TEMPLATE.code("text") if "CREATE ROLE" in code]
    [sql] = re.findall("^CREATE ROLE .*", script, re.MULTILINE)
    with raw(owner) as connection:
        connection.execute(sql.replace("app", role).replace(":'password'", "'a password'"))
    return {
        "postgresql://owner@postgres/chats": owner,
        "postgresql://app@postgres/chats": owner.replace("eventlog@", f"{role}@"),
        "app": role,
    }


def command(service: dict[str, Any], urls: dict[str, str], **other: str) -> list[str]:
    """Return a service's command, on the server of the tests."""
    program, *arguments = [(urls | other).get(word, word) for word in service["command"]]
    assert program == "eventlog"
    return [sys.executable, "-m", "agents_eventlog", *arguments]


@pytest.fixture
def log(services: dict[str, Any], urls: dict[str, str]) -> dict[str, str]:
    """The URLs, after the service that prepares the log has run, as it does at each start."""
    for _ in range(2):
        subprocess.run(command(services["init"], urls), check=True, cwd=ROOT)
    return urls


def test_what_needs_the_log_waits_for_its_rights(services: dict[str, Any]) -> None:
    assert services["init"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("chats", "page"):
        waits = {"init": {"condition": "service_completed_successfully"}}
        assert services[name]["depends_on"] == waits
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])


async def test_the_service_answers_as_the_applications_role(
    services: dict[str, Any], log: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = log[services["chats"]["environment"]["EVENTLOG_DB"]]
    monkeypatch.setenv("EVENTLOG_DB", url)
    namespace: dict[str, Any] = {}
    [code] = TEMPLATE.code("python")
    exec(code, namespace)
    app = namespace["app"]
    app.state.agent = Agent(name="Assistant", model=ScriptedModel([reply("Gladly.")]))
    transport, alice = ASGITransport(app), {"X-User": "alice"}
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url="http://test", headers=alice) as client,
    ):
        chat_id = (await client.post("/chats", json={})).json()["chat_id"]
        answer = await client.post(f"/chats/{chat_id}/messages", json={"text": "Hello"})
        assert answer.json() == {"answer": "Gladly."}


def test_the_probe_finds_the_log_healthy(services: dict[str, Any], log: dict[str, str]) -> None:
    program, *arguments = services["chats"]["healthcheck"]["test"][1:]
    assert program == "eventlog"
    url = log[services["chats"]["environment"]["EVENTLOG_DB"]]
    subprocess.run(
        [sys.executable, "-m", "agents_eventlog", *arguments],
        check=True,
        cwd=ROOT,
        env={**os.environ, "EVENTLOG_DB": url},
    )


def test_the_page_answers_on_its_port_with_the_key(
    services: dict[str, Any], log: dict[str, str]
) -> None:
    serving = command(services["page"], log, **{"4780": "0"})
    environment = {**os.environ, "EVENTLOG_VIEW_KEY": KEY, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        serving, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as page:
        try:
            assert page.stdout is not None
            [port] = re.findall(r":(\d+)/", page.stdout.readline())
            with Client(base_url=f"http://localhost:{port}", follow_redirects=True) as browser:
                assert browser.get("/").status_code == 403
                assert browser.get("/", params={"key": KEY}).status_code == 200
        finally:
            page.terminate()
