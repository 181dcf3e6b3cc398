"""What a call's event says, and that there is one."""

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import falcon
import falcon.testing
import flask
import numpy as np
import pytest
from asgi_served import Asgi
from asgiref.sync import async_to_sync
from serving import billed

from conftest import Connect, Meter
from dodo_ingestion._exchange import Exchange
from dodo_ingestion._metering import Metering
from dodo_ingestion.asgi import MeterMiddleware as AsgiMiddleware
from dodo_ingestion.asgi import set_endpoint, set_units
from dodo_ingestion.wsgi import MeterMiddleware


def test_a_callable_is_asked_once_for_a_call(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="once")
    asked: list[str] = []

    def note(what: str, answer: object) -> Callable[[object], Any]:
        def ask(_argument: object) -> object:
            asked.append(what)
            return answer

        return ask

    async def customer(_scope: object) -> str:
        asked.append("customer")
        return "cus_once"

    answers: dict[str, Any] = {
        "skip": False,
        "bill_status": None,
        "units": 2,
        "endpoint": "/e",
        "metadata": {},
    }
    options: dict[str, Any] = {name: note(name, answer) for name, answer in answers.items()}
    for raises in ("raise", "skip"):
        asked.clear()
        Asgi().serve(ingestion, customer=customer, on_missing_customer=raises, **options)
        assert sorted(asked) == sorted(["customer", *answers])
    assert len(billed(meter, ingestion, "cus_once")) == 2


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.1), 0.1),
        (np.float64(0.5), 0.5),
        (Decimal("2.5"), 2.5),
        (2.0, 2.0),
        (True, None),
        (np.bool_(True), None),
        (np.float32("nan"), None),
        (np.datetime64("NaT"), None),
        (Decimal("nan"), None),
        ("5", None),
        (2**63, None),
        ([1], None),
    ],
)
def test_units_are_any_number(units: Any, expected: object, connect: Connect, meter: Meter) -> None:  # noqa: ANN401
    ingestion = connect(account="units")
    for by_option in (False, True):
        customer = f"cus_units_{type(units)}_{units}_{by_option}"
        said = Asgi(before=lambda scope: set_units(scope, units))
        options: dict[str, Any] = {"units": lambda _scope: units} if by_option else {}
        (Asgi() if by_option else said).serve(
            ingestion, customer, customer="x-customer-id", **options
        )
        (event,) = billed(meter, ingestion, customer)
        assert event["metadata"].get("units") == expected


@pytest.mark.parametrize(
    "template",
    [
        *("/{path:path}", "/{rest:path}", "/<path:p>", "/<p:path>", "<path:p>"),
        *("/*rest", "/.*", "/(.*)", "/(?P<path>.*)", "/(?P<rest>.+)"),
        *("/files/{path:path}", "/files/<path:p>", "files/*rest", "/files/.*"),
    ],
)
def test_a_404_of_a_catch_all_is_none_of_a_route(
    template: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="catch-all")
    customer = f"cus_catch_all_{template}"
    for status in (404, 200):
        taken = Asgi(status=status, before=lambda scope: scope.update(path_template=template))
        taken.serve(ingestion, customer, customer="x-customer-id")
    events = billed(meter, ingestion, customer)
    assert sorted(event["event_name"] for event in events) == ["api_call", "api_error"]
    assert {event["metadata"]["endpoint"] for event in events} == {template}


@pytest.mark.parametrize("template", ["/{path}", "/files/{path:path}/x", "/<p>", "/x.*/y", "/"])
def test_a_404_of_any_other_route_is_billed(template: str, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="no-catch-all")
    customer = f"cus_no_catch_all_{template}"
    taken = Asgi(status=404, before=lambda scope: scope.update(path_template=template))
    taken.serve(ingestion, customer, customer="x-customer-id")
    (event,) = billed(meter, ingestion, customer)
    assert event["event_name"] == "api_call"


@pytest.mark.parametrize("by_option", [True, False])
def test_a_404_with_an_endpoint_that_was_named_is_billed(
    by_option: bool, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="named-catch-all")
    customer = f"cus_named_catch_all_{by_option}"
    template = "/{rest:path}"
    options: dict[str, Any] = {"endpoint": lambda _scope: template} if by_option else {}
    said = Asgi(status=404, before=lambda scope: set_endpoint(scope, template))
    app = Asgi(status=404) if by_option else said
    app.serve(ingestion, customer, customer="x-customer-id", **options)
    (event,) = billed(meter, ingestion, customer)
    assert event["event_name"] == "api_call"


def test_of_threads_that_end_a_call_one_makes_the_event(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="threads")
    options = {"customer": lambda _: "cus_threads"}
    shared = Metering(ingestion, options, header=lambda _: lambda _: None)
    calls = [Exchange(shared, {}, "GET", "/") for _ in range(500)]
    for call in calls:
        call.begin(200)

    def finish() -> None:
        for call in calls:
            call.finish()

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for ended in [pool.submit(finish) for _ in range(4)]:
                ended.result()
    finally:
        sys.setswitchinterval(switching)
    assert all(call.finished for call in calls)
    assert len(billed(meter, ingestion, "cus_threads")) == len(calls)


@pytest.mark.parametrize(("count", "size"), [(300, 304), (None, None)])
def test_a_file_that_the_server_copies(
    count: int | None, size: int | None, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="zero-copy")
    customer = f"cus_zero_copy_{count}"

    async def app(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"head", "more_body": True})
        await send({"type": "http.response.zerocopysend", "file": 3, "count": count})

    served: Any = Asgi()
    served.app = app
    served.serve(ingestion, customer, customer="x-customer-id")
    (event,) = billed(meter, ingestion, customer)
    assert "aborted" not in event["metadata"]
    assert event["metadata"].get("response_bytes") == size


@pytest.mark.parametrize(
    ("name", "headers", "early"),
    [
        ("right", [(b"Content-Length", b"8")], True),
        ("longer", [(b"content-length", b"9")], False),
        ("words", [(b"content-length", b"eight")], False),
        ("broken", [("content-length", "8"), None], False),
        ("none", None, False),
    ],
)
def test_a_body_of_a_declared_length_is_metered_when_it_is_whole(
    name: str,
    headers: Any,  # noqa: ANN401
    early: bool,
    connect: Connect,
    meter: Meter,
) -> None:
    ingestion = connect(account="declared")
    customer = f"cus_declared_{name}"
    accepted: list[int] = []

    async def app(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for body in (b"four", b"four"):
            await send({"type": "http.response.body", "body": body, "more_body": True})
            accepted.append(ingestion.stats()["accepted"] - before)
        await send({"type": "http.response.body", "body": b""})

    before = ingestion.stats()["accepted"]
    served: Any = Asgi()
    served.app = app
    served.serve(ingestion, customer, customer="x-customer-id")
    (event,) = billed(meter, ingestion, customer)
    assert accepted == [0, int(early)]
    assert event["metadata"]["response_bytes"] == 8
    assert "aborted" not in event["metadata"]


def test_a_view_of_flask_s_that_raises_through_has_its_endpoint(
    connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="raises-through")
    app = flask.Flask(__name__)
    app.testing = True
    customer = "cus_raises_through"
    metered: Any = MeterMiddleware(app.wsgi_app, ingestion=ingestion, customer=lambda _: customer)
    app.wsgi_app = metered  # type: ignore[method-assign]

    @app.get("/users/<int:number>")
    def boom(number: int) -> str:
        raise RuntimeError(f"broken on purpose: {number}")

    with pytest.raises(RuntimeError, match="on purpose"):
        app.test_client().get("/users/7")
    (event,) = billed(meter, ingestion, customer)
    assert event["event_name"] == "api_error"
    assert event["metadata"]["endpoint"] == "/users/<int:number>"


def test_a_view_of_flask_s_that_copies_its_context_has_its_endpoint(
    connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="copies-context")
    app = flask.Flask(__name__)
    customer = "cus_copies_context"
    metered: Any = MeterMiddleware(app.wsgi_app, ingestion=ingestion, customer=lambda _: customer)
    app.wsgi_app = metered  # type: ignore[method-assign]

    @app.get("/users/<int:number>")
    def concurrent(number: int) -> str:
        @flask.copy_current_request_context
        def work() -> None:
            set_units(flask.request, number)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return "ok"

    app.test_client().get("/users/7")
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["endpoint"] == "/users/<int:number>"
    assert event["metadata"]["units"] == 7


def test_what_a_middleware_of_falcon_s_answers_for_a_resource_has_its_endpoint(
    connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="falcon-answers")
    customer = "cus_falcon_answers"

    class Paying:
        def process_resource(self, *_arguments: object) -> None:
            raise falcon.HTTPError(402)

    app = falcon.App(middleware=[Paying()])
    app.add_route("/users/{number}", Paying())
    metered = MeterMiddleware(app, ingestion=ingestion, customer=lambda _: customer)
    assert falcon.testing.TestClient(metered).get("/users/7").status_code == 402
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["endpoint"] == "/users/{number}"


@pytest.mark.parametrize("head", ["HEAD", 204, 304])
@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves_has_the_whole_of_a_response_without_a_body(
    head: Any,  # noqa: ANN401
    begun: bool,
    connect: Connect,
    meter: Meter,
) -> None:
    ingestion = connect(account="bodiless")
    customer = f"cus_bodiless_{head}_{begun}"

    async def app(_scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        status = head if isinstance(head, int) else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        if begun:
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
        # As Starlette and Quart do, which stop where the client has left.
        while (await receive())["type"] != "http.disconnect":
            pass

    async def receive() -> Any:  # noqa: ANN401
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        pass

    metered: Any = AsgiMiddleware(app, ingestion=ingestion, customer=lambda _: customer)
    method = head if isinstance(head, str) else "GET"
    scope = {"type": "http", "method": method, "path": "/", "headers": []}
    asyncio.run(metered(scope, receive, send))
    (event,) = billed(meter, ingestion, customer)
    assert event["event_name"] == "api_call"
    assert "aborted" not in event["metadata"]


def test_a_send_that_is_called_from_another_thread(connect: Connect, meter: Meter) -> None:
    """As a framework does that serves in threads: it asks first whether `send` is async."""
    ingestion = connect(account="called-from-a-thread")
    served = Asgi()

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001
        send_here = async_to_sync(send)

        def serve() -> None:
            send_here({"type": "http.response.start", "status": 201, "headers": []})
            send_here({"type": "http.response.body", "body": b"all"})

        scope["path_template"] = "/threads"
        await asyncio.to_thread(serve)

    served.app = app  # type: ignore[method-assign]
    served.serve(ingestion, "cus_thread", customer="x-customer-id")
    assert [each["type"] for each in served.sent] == ["http.response.start", "http.response.body"]
    (event,) = billed(meter, ingestion, "cus_thread")
    assert event["metadata"]["status_code"] == 201
    assert event["metadata"]["response_bytes"] == 3
