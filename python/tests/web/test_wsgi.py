"""WSGI, with apps and servers that do exactly what a test asks for."""

import io
import subprocess
import sys
import textwrap
import warnings
import wsgiref.util
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import bottle
import flask
import pytest
from serving import CASE_NAMES, CASES, NAMES, WITHIN, billed
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from conftest import Connect, Meter
from dodo_ingestion import Ingestion, _routes
from dodo_ingestion._exchange import current
from dodo_ingestion.metering import set_units
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


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
@pytest.mark.parametrize("written", [False, True])
def test_an_app_that_raises_before_it_returns_a_body(
    written: bool, error: type[BaseException], connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="wsgi-raised")
    customer = f"cus_wsgi_raised_{written}_{error.__name__}"

    def app(_environ: Any, start_response: Any) -> Any:  # noqa: ANN401
        write = start_response("200 OK", [])
        if written:
            write(b"some")
        raise error

    with pytest.raises(error):
        wsgi_call(app, ingestion, customer)
    (event,) = billed(meter, ingestion, customer)
    metadata = event["metadata"]
    assert event["event_name"] == ("api_call" if written else "api_error")
    answered = 500 if error is RuntimeError else None
    assert metadata.get("status_code") == (200 if written else answered)
    assert metadata.get("response_bytes") == (len(b"some") if written else None)
    assert metadata.get("aborted", False) == (written or error is SystemExit)


@pytest.mark.parametrize("how", ["nothing", "write", "body"])
def test_a_head_that_comes_too_late_counts_not(how: str, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-exc-info")
    customer = f"cus_wsgi_exc_info_{how}"

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:  # noqa: ANN401
        write = start_response("200 OK", [])
        if how == "write":
            write(b"some")
        if how == "body":
            yield b"some"
        try:
            int("broken on purpose")
        except ValueError:
            start_response("418 Teapot", [], sys.exc_info())
        yield b"sorry"

    sent: list[bytes] = []

    def start_response(_status: str, _headers: object, exc_info: Any = None) -> Any:  # noqa: ANN401
        if exc_info and sent:
            raise exc_info[1]
        return sent.append

    metered: Any = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_X_CUSTOMER_ID": customer}
    body = metered(environ, start_response)
    try:
        for chunk in body:
            sent.append(chunk)
    except ValueError:
        assert sent == [b"some"]
    body.close()
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["status_code"] == (418 if how == "nothing" else 200)
    assert event["metadata"]["response_bytes"] == len(b"".join(sent))
    assert event["metadata"].get("aborted", False) == (how != "nothing")


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


def users(make: Any) -> Any:  # noqa: ANN401
    app = make(__name__) if make is flask.Flask else make()
    app.route("/users/<user>")(lambda user: user)
    return app


def tenant(app: Any) -> Any:  # noqa: ANN401
    """Take what a client has in front of its path, out of sight."""

    def shifting(environ: Any, start_response: Any) -> Any:  # noqa: ANN401
        wsgiref.util.shift_path_info(environ)
        return app(environ, start_response)

    return shifting


def bottle_mounts(make: Any) -> Any:  # noqa: ANN401
    app = make()
    app.mount("/mount/", tenant(users(make)))
    app.mount("/below/", users(make))
    again = users(make)
    with warnings.catch_warnings():
        # Of mounts that Bottle serves by WSGI.
        warnings.simplefilter("ignore", DeprecationWarning)
        app.mount("/again", again)
    outer = make()
    outer.mount("/outer/", DispatcherMiddleware(app))
    return outer


FRONTS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "tenant": (lambda make: tenant(users(make)), "/secret", "/*"),
    "mounted tenant": (
        lambda make: DispatcherMiddleware(None, {"/api": tenant(users(make))}),  # type: ignore[arg-type]
        "/api/secret",
        "/api/*",
    ),
    "tenant's mount": (
        lambda make: tenant(DispatcherMiddleware(users(make), {"/api": users(make)})),
        "/secret/api",
        "/*",
    ),
    "mount of a mount": (
        lambda make: DispatcherMiddleware(
            users(make),
            {"/api": ProxyFix(DispatcherMiddleware(users(make), {"/v1": users(make)}))},
        ),
        "/api/v1",
        "/api/v1",
    ),
}
BOTTLE_FRONTS: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "tenant in a mount": (bottle_mounts, "/outer/mount/secret", "/outer/mount/*"),
    "mount in a mount": (bottle_mounts, "/outer/again", "/outer/again"),
    "rules in a mount": (bottle_mounts, "/outer/below", "/outer/below"),
}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((flask.Flask, name) for name in FRONTS),
        *((bottle.Bottle, name) for name in FRONTS | BOTTLE_FRONTS),
    ],
)
def test_what_a_client_may_have_chosen_is_not_in_the_endpoint(
    make: Any,  # noqa: ANN401
    name: str,
    connect: Connect,
    meter: Meter,
) -> None:
    ingestion = connect(account="wsgi-fronts")
    fronts = FRONTS | BOTTLE_FRONTS
    customer = f"cus_wsgi_fronts_{list(fronts).index(name)}_{make.__name__}"
    served, front, template = fronts[name]
    environ: dict[str, Any] = {"PATH_INFO": f"{front}/users/7", "SCRIPT_NAME": ""}
    wsgiref.util.setup_testing_defaults(environ)
    body, _ = wsgi_call(served(make), ingestion, customer, **environ)
    assert list(body) == [b"7"]
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["endpoint"] == f"{template}/users/<user>"


def test_a_route_behind_a_mount_that_nobody_knows_of_is_excluded_by_its_path(
    connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="wsgi-unknown")
    mounts: Any = DispatcherMiddleware(users(flask.Flask), {"/api": users(flask.Flask)})
    app = MeterMiddleware(
        lambda environ, start_response: mounts(environ, start_response),
        ingestion=ingestion,
        customer="x-customer-id",
        exclude=["/api/users/7"],
    )
    for path in ("/api/users/7", "/api/users/8"):
        environ: dict[str, Any] = {"PATH_INFO": path, "HTTP_X_CUSTOMER_ID": "cus_wsgi_unknown"}
        wsgiref.util.setup_testing_defaults(environ)
        list(app(environ, lambda *_: lambda _: None))
    (event,) = billed(meter, ingestion, "cus_wsgi_unknown")
    assert event["metadata"]["endpoint"] == "/*/users/<user>"


def test_a_mount_that_is_added_later(
    connect: Connect, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion = connect(account="wsgi-added")
    monkeypatch.setattr(_routes, "_RELOAD_AFTER", 0.0)
    app = users(flask.Flask)
    mounts = {"/first": app}
    # It has itself behind its mounts.
    app.wsgi_app = MeterMiddleware(
        DispatcherMiddleware(app.wsgi_app, mounts), ingestion=ingestion, customer="x-customer-id"
    )
    for mount in ("/first", "/second"):
        mounts[mount] = app
        headers = {"x-customer-id": "cus_wsgi_added"}
        assert app.test_client().get(f"{mount}/users/7", headers=headers).data == b"7"
    events = billed(meter, ingestion, "cus_wsgi_added")
    endpoints = sorted(event["metadata"]["endpoint"] for event in events)
    assert endpoints == ["/first/users/<user>", "/second/users/<user>"]


@pytest.mark.parametrize("path", ["/users/7", "/nothing", "/boom", "/stream"])
def test_a_call_inside_another_gives_it_back(path: str, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-batch")
    customer = f"cus_wsgi_batch_{path.strip('/').replace('/', '_')}"
    app = users(flask.Flask)

    @app.get("/batch")  # type: ignore[untyped-decorator]
    def batch() -> str:
        app.test_client().get(path, headers={"x-customer-id": f"{customer}_inner"}).close()
        set_units(7)
        return "ok"

    @app.get("/stream")  # type: ignore[untyped-decorator]
    def stream() -> flask.Response:
        return flask.Response(iter([b"some", b"more"]))

    app.wsgi_app = MeterMiddleware(app.wsgi_app, ingestion=ingestion, customer="x-customer-id")
    assert app.test_client().get("/batch", headers={"x-customer-id": customer}).data == b"ok"
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["units"] == 7
    (inner,) = meter.events(f"{customer}_inner")
    assert "units" not in inner["metadata"]


def test_a_call_that_outlives_the_one_around_it(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wsgi-outlives")

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:  # noqa: ANN401
        start_response("200 OK", [])
        yield b"some"

    outer, _ = wsgi_call(app, ingestion, "cus_wsgi_outlived")
    inner, _ = wsgi_call(app, ingestion, "cus_wsgi_outlives")
    for body in (outer, inner):
        list(body)
        body.close()
    assert current.get() is None
    for customer in ("cus_wsgi_outlived", "cus_wsgi_outlives"):
        assert len(billed(meter, ingestion, customer)) == 1


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
