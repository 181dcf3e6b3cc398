"""The examples, served as their first lines say."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from serving import eventually

from conftest import Meter, unused_port

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = {
    "fastapi": ["uvicorn", "fastapi_app:app", "--port", "{port}"],
    "litestar": ["uvicorn", "litestar_app:app", "--port", "{port}"],
    "django": ["uvicorn", "django_app:application", "--port", "{port}", "--lifespan", "off"],
    "flask": ["waitress", "--listen", "127.0.0.1:{port}", "flask_app:app"],
    "aiohttp": ["aiohttp.web", "-H", "127.0.0.1", "-P", "{port}", "aiohttp_app:make_app"],
}
TEMPLATES = {
    "fastapi": "/users/{id}",
    "litestar": "/users/{id}",
    "django": "/users/<int:id>",
    "flask": "/users/<int:id>",
    "aiohttp": "/users/{id}",
}


@dataclass
class Example:
    port: int
    process: subprocess.Popen[bytes]

    def get(self, path: str, **headers: str) -> int | None:
        """Ask for the status, `None` while nobody answers."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=named)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            assert self.process.poll() is None, "the server has ended"
            return None


@pytest.fixture(scope="module")
def served(meter: Meter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Example]]:
    environment = {
        **os.environ,
        "DODO_PAYMENTS_API_KEY": "dodo_test_examples",
        "DODO_PAYMENTS_BASE_URL": meter.url,
        "DODO_INGESTION_EVENT_NAME": "api_call",
        "DODO_INGESTION_LINGER": "0.05",
        "DODO_INGESTION_SPOOL_DIR": str(tmp_path_factory.mktemp("spool")),
    }
    examples: dict[str, Example] = {}
    for name, command in COMMANDS.items():
        port = unused_port()
        arguments = [part.format(port=port) for part in command]
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=EXAMPLES,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        examples[name] = Example(port, process)
    yield examples
    for example in examples.values():
        example.process.terminate()
    for example in examples.values():
        example.process.wait(timeout=60)


def events(meter: Meter, customer: str) -> Any:  # noqa: ANN401
    return eventually(lambda: meter.events(customer))


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_bills(name: str, served: dict[str, Example], meter: Meter) -> None:
    customer = "cus_example_key" if name == "flask" else f"cus_example_{name}"
    headers = {"X_Customer_Id": customer, "X_Api_Key": "secret-1"}
    status = eventually(lambda: served[name].get("/users/7", **headers))
    assert status == 200
    (event,) = events(meter, customer)
    assert event["event_name"] == "api_call"
    assert event["metadata"]["endpoint"] == TEMPLATES[name]


def test_what_the_examples_show_besides(served: dict[str, Example], meter: Meter) -> None:
    fastapi, flask = served["fastapi"], served["flask"]
    assert eventually(lambda: fastapi.get("/health", X_Customer_Id="cus_example_health")) == 200
    assert fastapi.get("/reports/7", X_Customer_Id="cus_example_report") == 200
    assert eventually(lambda: flask.get("/users/7", X_Api_Key="wrong")) == 401
    (event,) = events(meter, "cus_example_report")
    assert event["metadata"]["units"] == 10
    assert meter.events("cus_example_health") == []
