"""WSGI, with apps and servers that do exactly what a test asks for."""

import io
import subprocess
import sys
import textwrap
import wsgiref.util
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import flask
import pytest
from serving import CASE_NAMES, CASES, NAMES, WITHIN, billed
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from conftest import Connect, Meter
from dodo_ingestion import Ingestion
from dodo_ingestion.wsgi import MeterMiddleware


@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
def test_the_defaults_under_wsgi(case: dict[str, Any], connect: Connect, meter: Meter) -> None:
    if case["status"] is None:
        pytest.skip("WSGI has no way to tell of a client that left before there was a response")
    customer = f"cus_wsgi_{CASES.index(case)}"
    ingestion = connect(linger=0.01)

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:  # noqa: ANN401
        if case["matched"]:
            environ["bottle.route"] = SimpleNamespace(rule="/things/<thing>")
        start_response(f"{case['status']} Whatever", [])
        yield b"some"
        yield b" more"

    metered: Any = MeterMiddleware(app, ingestion=ingestion, customer="X-Customer-Id")
    environ = {
        "REQUEST_METHOD": case["method"],
        "PATH_INFO": "/things/7",
        "HTTP_X_CUSTOMER_ID": customer,
    }
    body = metered(environ, lambda *_arguments: None)
    chunks = iter(body)
    next(chunks)
    if not case["aborted"]:
        list(chunks)
    # A generator has a close, and so has what stands for it; OPTIONS is handed through.
    body.close()
    ingestion.flush(timeout=WITHIN)
    events = meter.events(customer)
    assert [event["event_name"] for event in events] == NAMES[case["event"]]
    for event in events:
        assert event["metadata"].get("status_code") == case["status"]
        assert event["metadata"].get("aborted", False) == case["aborted"]


def wsgi_call(app: Any, ingestion: Ingestion, customer: str, **environ: Any) -> Any:  # noqa: ANN401
    metered: Any = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    written: list[bytes] = []
    defaults = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_CUSTOMER_ID": customer}
    body = metered({**defaults, **environ}, lambda *_arguments: written.append)
    return body, written


def test_write_and_the_close_of_the_body(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-write")
    closed: list[bool] = []

    class Body(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(_environ: Any, start_response: Any) -> Any:  # noqa: ANN401
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"written ")
        return Body([b"returned"])

    body, written = wsgi_call(app, ingestion, "cus_wsgi_write")
    # A server reads the length to declare it.
    assert len(body) == 1
    assert list(body) == [b"returned"]
    body.close()
    assert written == [b"written "]
    assert closed == [True]
    (event,) = billed(meter, ingestion, "cus_wsgi_write")
    assert event["metadata"]["response_bytes"] == len(b"written returned")


def test_a_file_is_left_to_the_server(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-file")
    file = io.BytesIO(b"x" * 5000)

    def app(environ: Any, start_response: Any) -> Any:  # noqa: ANN401
        start_response("200 OK", [("Content-Length", "5000")])
        return environ["wsgi.file_wrapper"](file)

    wrapper = wsgiref.util.FileWrapper
    body, _ = wsgi_call(app, ingestion, "cus_wsgi_file", **{"wsgi.file_wrapper": wrapper})
    assert isinstance(body, wrapper)
    body.close()
    assert file.closed
    (event,) = billed(meter, ingestion, "cus_wsgi_file")
    assert event["metadata"]["response_bytes"] == 5000
    assert "aborted" not in event["metadata"]


def test_a_body_that_breaks(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-broken")

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:  # noqa: ANN401
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/late":
            yield b"some"
        raise RuntimeError("boom")

    for path, customer in (("/", "cus_wsgi_early"), ("/late", "cus_wsgi_late")):
        body, _ = wsgi_call(app, ingestion, customer, PATH_INFO=path)
        with pytest.raises(RuntimeError):
            list(body)
        body.close()
    (early,) = billed(meter, ingestion, "cus_wsgi_early")
    assert (early["event_name"], early["metadata"]["status_code"]) == ("api_error", 500)
    (late,) = billed(meter, ingestion, "cus_wsgi_late")
    assert (late["event_name"], late["metadata"]["aborted"]) == ("api_call", True)


def test_a_file_that_a_function_of_the_server_s_wraps(connect: Connect, meter: Meter) -> None:
    # As uWSGI does, which knows the file again by its identity.
    ingestion = connect(account="wsgi-function")
    file = io.BytesIO(b"x" * 5000)

    def app(environ: Any, start_response: Any) -> Any:  # noqa: ANN401
        start_response("200 OK", [("Content-Length", "5000")])
        return environ["wsgi.file_wrapper"](file, 1000)

    wrapper = {"wsgi.file_wrapper": lambda file, _size: file}
    body, _ = wsgi_call(app, ingestion, "cus_wsgi_function", **wrapper)
    assert body is file
    body.close()
    assert file.closed
    (event,) = billed(meter, ingestion, "cus_wsgi_function")
    assert event["metadata"]["response_bytes"] == 5000
    assert "aborted" not in event["metadata"]


@pytest.mark.parametrize("late", [False, True])
def test_a_worker_that_is_told_to_stop_has_not_answered(
    late: bool, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="wsgi-stopped")
    customer = f"cus_wsgi_stopped_{late}"

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:  # noqa: ANN401
        start_response("200 OK", [])
        if late:
            yield b"some"
        raise SystemExit(1)

    body, _ = wsgi_call(app, ingestion, customer)
    with pytest.raises(SystemExit):
        list(body)
    body.close()
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["aborted"] is True
    assert event["metadata"].get("status_code") == (200 if late else None)
    assert event["event_name"] == ("api_call" if late else "api_error")


def test_a_body_that_nobody_closes(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-unclosed")

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:  # noqa: ANN401
        start_response("200 OK", [])
        yield b"some"
        yield b"more"

    # As a middleware has it that iterates, and knows of no more.
    body = map(bytes.upper, wsgi_call(app, ingestion, "cus_wsgi_unclosed")[0])
    assert next(body) == b"SOME"
    del body
    (event,) = billed(meter, ingestion, "cus_wsgi_unclosed")
    assert (event["event_name"], event["metadata"]["status_code"]) == ("api_call", 200)
    assert event["metadata"]["aborted"] is True
    assert event["metadata"]["response_bytes"] == len(b"some")


def test_a_body_that_is_left_when_the_interpreter_ends() -> None:
    program = """
        import sys, types
        from dodo_ingestion import Ingestion
        from dodo_ingestion.wsgi import MeterMiddleware

        ingestion = Ingestion(
            api_key="k", environment="test_mode", event_name="api_call", exit_timeout=0,
            base_url="http://127.0.0.1:9", durability="memory", on_alarm=lambda *_: None,
        )

        def app(environ, start_response):
            start_response("200 OK", [])
            yield b"some"

        metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_CUSTOMER_ID": "cus_1"}
        # Unlike this module, it is let go of when most others are gone.
        sys.modules["left"] = types.ModuleType("left")
        sys.modules["left"].body = metered(environ, lambda *_: None)
        next(sys.modules["left"].body)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_proxy_s_prefix_is_not_in_the_endpoint(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-prefix")
    app = flask.Flask(__name__)

    @app.get("/items/<item>")
    def item(item: str) -> str:
        return item

    served = ProxyFix(DispatcherMiddleware(app, {"/below": app}), x_prefix=1)
    for path in ("/items/7", "/below/items/7"):
        headers = {"HTTP_X_FORWARDED_PREFIX": "/secret", "PATH_INFO": path}
        environ: dict[str, Any] = {**headers, "SCRIPT_NAME": ""}
        wsgiref.util.setup_testing_defaults(environ)
        body, _ = wsgi_call(served, ingestion, "cus_wsgi_prefix", **environ)
        assert list(body) == [b"7"]
    events = billed(meter, ingestion, "cus_wsgi_prefix")
    endpoints = sorted(event["metadata"]["endpoint"] for event in events)
    assert endpoints == ["/below/items/<item>", "/items/<item>"]


def test_a_header_that_came_twice_names_nobody(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-twice")

    def app(_environ: Any, start_response: Any) -> list[bytes]:  # noqa: ANN401
        start_response("200 OK", [])
        return [b"ok"]

    # X-Customer-Id of the gateway's and X_Customer_Id of the client's are one to a server.
    for customer in ("cus_wsgi_twice,cus_wsgi_other", "cus_wsgi_once"):
        body, _ = wsgi_call(app, ingestion, customer)
        list(body)
    assert len(billed(meter, ingestion, "cus_wsgi_once")) == 1
    for customer in ("cus_wsgi_twice", "cus_wsgi_other", "cus_wsgi_twice,cus_wsgi_other"):
        assert meter.events(customer) == []
