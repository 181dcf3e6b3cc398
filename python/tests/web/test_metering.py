"""What the middlewares share, with apps and servers that do exactly what a test asks for."""

import asyncio
import functools
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
import trio
from asgi_served import Asgi
from serving import CASE_NAMES, CASES, CLIMBING, NAMES, ROOM, STAYING, WITHIN, billed

from conftest import Connect, Meter, logged
from dodo_ingestion import ConfigurationError, Ingestion, _metering, metering
from dodo_ingestion._client import Client
from dodo_ingestion.asgi import (
    MeterMiddleware,
    MissingCustomer,
    set_customer,
    set_metadata,
    set_units,
)
from dodo_ingestion.wsgi import MeterMiddleware as WsgiMiddleware


async def looked_up(_request: object) -> Any:  # noqa: ANN401
    return "cus_1"


class LookUp:
    async def __call__(self, _request: object) -> str:
        return "cus_1"


@pytest.mark.parametrize("case", CASES, ids=CASE_NAMES)
def test_the_defaults_under_asgi(case: dict[str, Any], connect: Connect, meter: Meter) -> None:
    customer = f"cus_asgi_{CASES.index(case)}"
    ingestion = connect(linger=0.01)
    served = Asgi(status=case["status"], matched=case["matched"], aborted=case["aborted"])
    served.serve(ingestion, customer, method=case["method"], customer="X-Customer-Id")
    ingestion.flush(timeout=WITHIN)
    events = meter.events(customer)
    assert [event["event_name"] for event in events] == NAMES[case["event"]]
    for event in events:
        metadata = event["metadata"]
        assert metadata.get("status_code") == case["status"]
        assert metadata.get("aborted", False) == case["aborted"]
        assert metadata.get("endpoint") == ("/things/{thing}" if case["matched"] else None)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"customers": "x"}, "customers"),
        ({"customer": 7}, "customer"),
        ({"customer": "not a header"}, "customer"),
        ({"event_name": ""}, "event_name"),
        ({"event_name": "x" * 256}, "event_name"),
        ({"error_event_name": 5}, "error_event_name"),
        ({"bill_status": [200]}, "bill_status"),
        ({"exclude": "/health"}, "exclude"),
        ({"exclude": ["/a*b"]}, "exclude"),
        ({"skip": True}, "skip"),
        ({"metadata": {"endpoint": "/x"}}, "metadata.endpoint"),
        ({"metadata": {"size": float("nan")}}, "metadata.size"),
        ({"metadata": {"plan": []}}, "metadata.plan"),
        ({"metadata": {f"k{n}": n for n in range(51)}}, "metadata"),
        ({"metadata": 5}, "metadata"),
        ({"units": 5}, "units"),
        ({"endpoint": "/x"}, "endpoint"),
        ({"on_missing_customer": "rais"}, "on_missing_customer"),
        ({"on_missing_customer": {"default": ""}}, "on_missing_customer"),
        ({"on_missing_customer": {"default": "c" * 256}}, "on_missing_customer"),
        ({"ingestion": "x"}, "ingestion"),
        ({"ingestion": looked_up}, "ingestion"),
        ({"bill_status": looked_up}, "bill_status"),
        ({"skip": looked_up}, "skip"),
        ({"metadata": looked_up}, "metadata"),
        ({"units": LookUp()}, "units"),
        ({"endpoint": functools.partial(looked_up)}, "endpoint"),
    ],
)
def test_a_mistake_in_an_option_is_named(
    options: dict[str, Any], name: str, connect: Connect
) -> None:
    for middleware in (MeterMiddleware, WsgiMiddleware):
        with pytest.raises(ConfigurationError) as raised:
            middleware(Asgi().app, **{"ingestion": connect(), **options})  # type: ignore[arg-type]
        assert raised.value.field == name
        assert name in str(raised.value)


@pytest.mark.parametrize("customer", [looked_up, LookUp()])
def test_an_async_callable_needs_an_async_middleware(customer: Any, connect: Connect) -> None:  # noqa: ANN401
    with pytest.raises(ConfigurationError) as raised:
        WsgiMiddleware(lambda *_arguments: [], ingestion=connect(), customer=customer)
    assert raised.value.field == "customer"


def test_options(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="options")

    async def by_scope(scope: Any) -> str:  # noqa: ANN401
        await asyncio.sleep(0)
        return f"cus_opt_{scope['who']}"

    def say(**what: str) -> Callable[[dict[str, Any]], None]:
        return lambda scope: scope.update(what)

    options: dict[str, Any] = {
        "customer": by_scope,
        "event_name": "gateway_call",
        "error_event_name": "gateway_error",
        "bill_status": lambda status: status != 402,
        "exclude": ["/health", "/static/*"],
        "skip": lambda scope: scope["who"] == "skipped",
        "metadata": lambda scope: {"who": scope["who"], "nothing": None},
        "units": lambda _scope: 7,
        "endpoint": lambda scope: scope.get("template"),
    }
    Asgi(status=500, before=say(who="a")).serve(ingestion, **options)
    Asgi(status=402, before=say(who="b")).serve(ingestion, **options)
    Asgi(before=say(who="skipped")).serve(ingestion, **options)
    Asgi(before=say(who="c", template="/health")).serve(ingestion, **options)
    Asgi(before=say(who="d"), matched=False).serve(ingestion, path="/static/x", **options)
    Asgi(before=say(who="e", template="/mine")).serve(ingestion, **options)

    (event,) = billed(meter, ingestion, "cus_opt_a")
    assert event["event_name"] == "gateway_call"
    assert event["metadata"]["who"] == "a"
    assert event["metadata"]["units"] == 7
    assert "nothing" not in event["metadata"]
    (event,) = billed(meter, ingestion, "cus_opt_b")
    assert event["event_name"] == "gateway_error"
    (event,) = billed(meter, ingestion, "cus_opt_e")
    assert event["metadata"]["endpoint"] == "/mine"
    for who in ("skipped", "c", "d"):
        assert billed(meter, ingestion, f"cus_opt_{who}") == []


def test_errors_can_be_left_out(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="no-errors")
    Asgi(status=500).serve(
        ingestion, "cus_no_errors", customer="x-customer-id", error_event_name=None
    )
    assert billed(meter, ingestion, "cus_no_errors") == []


def test_no_customer(connect: Connect, meter: Meter, caplog: pytest.LogCaptureFixture) -> None:
    ingestion = connect(account="nobody")
    served = Asgi()
    served.serve(ingestion, customer="x-customer-id")
    Asgi(status=401).serve(ingestion, customer="x-customer-id")
    told = [each for each in caplog.records if "nothing names the customer" in each.message]
    assert len(told) == 1
    assert served.sent[-1]["body"] == b" more"

    Asgi().serve(ingestion, on_missing_customer={"default": "cus_default"})
    assert len(billed(meter, ingestion, "cus_default")) == 1

    served = Asgi()
    with pytest.raises(MissingCustomer):
        served.serve(ingestion, customer="x-customer-id", on_missing_customer="raise")
    assert served.sent == []
    # What would not be billed needs no customer.
    Asgi(status=404, matched=False).serve(ingestion, on_missing_customer="raise")


def test_whatever_fails_the_response_is_served(
    connect: Connect, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> Any:  # noqa: ANN401
        raise RuntimeError("broken on purpose")

    names = ("customer", "skip", "metadata", "units", "endpoint", "bill_status")
    closed = connect(account="failing")
    closed.close(timeout=WITHIN)
    failing: dict[str, Any] = dict.fromkeys(names, fail)
    for ingestion in (closed, fail, lambda: 5):
        served = Asgi(before=lambda scope: set_customer(scope, "cus_fails"))
        served.serve(ingestion, **failing)
        assert [each["type"] for each in served.sent][-1] == "http.response.body"
    assert any("will not be billed" in each.message for each in caplog.records)

    # What only the metadata has wrong costs the metadata.
    ingestion = connect(account="failing-parts")
    served = Asgi(before=lambda scope: set_customer(scope, "cus_fails_parts"))
    bad: dict[str, Any] = {
        "x" * 101: 1,
        "nan": float("nan"),
        "list": [1],
        "\ud800": 1,
        "big": 2**63,
    }
    many = {f"key{number}": number for number in range(80)}
    served.serve(ingestion, metadata=lambda _scope: {**bad, "good": 1, "text": "ä" * 501, **many})
    (event,) = billed(meter, ingestion, "cus_fails_parts")
    assert event["metadata"]["good"] == 1
    assert event["metadata"]["text"] == "ä" * 500
    assert "list" not in event["metadata"]
    assert len(event["metadata"]) == 6 + ROOM
    assert event["metadata"]["status_code"] == 200


def test_a_template_and_a_method_that_are_no_text_cost_themselves(
    connect: Connect, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    ingestion = connect(account="no-text")
    served = Asgi(before=lambda scope: set_customer(scope, "cus_no_text"))
    options: dict[str, Any] = {"endpoint": lambda _scope: "/things/\ud800", "metadata": {"a": "b"}}
    served.serve(ingestion, method="\ud800", **options)
    (event,) = billed(meter, ingestion, "cus_no_text")
    assert event["metadata"].keys() >= {"status_code", "response_time_ms", "a"}
    assert not event["metadata"].keys() & {"endpoint", "method"}
    assert any("'endpoint': left out" in each.message for each in caplog.records)


def test_a_template_and_a_method_that_are_too_long_are_cut(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="too-long")
    served = Asgi(before=lambda scope: set_customer(scope, "cus_too_long"))
    served.serve(ingestion, method="M" * 501, endpoint=lambda _scope: "ä" * 501)
    (event,) = billed(meter, ingestion, "cus_too_long")
    assert event["metadata"]["endpoint"] == "ä" * 500
    assert event["metadata"]["method"] == "M" * 500


class Undecided:
    """As an array of numpy's, or a clause of SQLAlchemy's, is neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous on purpose")


@pytest.mark.parametrize("answer", [Undecided(), "awaitable"])
def test_an_answer_that_is_none(
    answer: object, connect: Connect, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    ingestion = connect(account="odd")

    def odd(_argument: object) -> Any:  # noqa: ANN401
        # What no look at the function could tell.
        return looked_up(None) if answer == "awaitable" else answer

    customer = f"cus_odd_{type(answer).__name__}"
    # Billed and not skipped, as if the options were not there.
    for name in ("skip", "bill_status", "metadata", "units", "endpoint"):
        caplog.clear()
        served = Asgi()
        options: dict[str, Any] = {name: odd}
        served.serve(ingestion, customer, customer=lambda _: customer, **options)
        assert served.sent[-1]["body"] == b" more"
        told = "endpoint" if isinstance(answer, Undecided) else ""
        assert name == told or len(logged(caplog)) == 1
    Asgi(status=500).serve(ingestion, customer, customer=lambda _: customer, bill_status=odd)
    names = [event["event_name"] for event in billed(meter, ingestion, customer)]
    assert sorted(names) == ["api_call"] * 5 + ["api_error"]


class Unreadable(Mapping[str, Any]):
    def __getitem__(self, key: str) -> object:
        raise RuntimeError("unreadable on purpose")

    def __iter__(self) -> Iterator[str]:
        return iter(["key"])

    def __len__(self) -> int:
        return 1


def test_metadata_that_cannot_be_read_costs_only_itself(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="unreadable")

    def mark(scope: dict[str, Any]) -> None:
        set_metadata(scope, {"kept": 1})
        set_metadata(scope, Unreadable())

    customer = "cus_unreadable"
    Asgi(before=mark).serve(
        ingestion, customer, customer="x-customer-id", metadata=lambda _scope: Unreadable()
    )
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["kept"] == 1
    assert event["metadata"]["status_code"] == 200


def test_a_look_up_holds_no_response_for_ever(
    connect: Connect, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion = connect(account="patience")
    monkeypatch.setattr(_metering, "PATIENCE", 0.05)

    async def main(sleep: Callable[[float], Awaitable[object]], name: str) -> None:
        async def customer(_scope: object) -> str:
            await sleep(WITHIN)
            return "cus_patience_late"

        served = Asgi()
        default: Any = {"default": name}
        app = MeterMiddleware(
            served.app, ingestion=ingestion, customer=customer, on_missing_customer=default
        )

        async def send(message: Any) -> None:  # noqa: ANN401
            served.sent.append(message)

        await app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)  # type: ignore[arg-type]
        assert served.sent[-1]["body"] == b" more"

    asyncio.run(main(asyncio.sleep, "cus_patience_asyncio"))
    trio.run(main, trio.sleep, "cus_patience_trio")
    for loop in ("asyncio", "trio"):
        assert len(billed(meter, ingestion, f"cus_patience_{loop}")) == 1
    assert meter.events("cus_patience_late") == []


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_callable_that_fails_is_asked_once(asynchronous: bool, connect: Connect) -> None:
    asked: list[object] = []

    def fail(scope: object) -> str:
        asked.append(scope)
        raise RuntimeError("broken on purpose")

    async def fail_later(scope: object) -> str:
        return fail(scope)

    Asgi().serve(connect(account="asked"), customer=fail_later if asynchronous else fail)
    assert len(asked) == 1


def test_the_log_is_bounded(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    served = Asgi()
    ingestion = connect(account="bounded")
    app: Any = MeterMiddleware(served.app, ingestion=ingestion, customer=lambda scope: scope["no"])

    async def main() -> None:
        async def send(_message: object) -> None:
            pass

        for _ in range(50):
            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            await app(scope, None, send)

    with caplog.at_level(logging.WARNING, "dodo_ingestion"):
        asyncio.run(main())
    assert len([each for each in caplog.records if "customer raised" in each.message]) == 1


def test_a_client_is_made_when_it_is_needed(connect: Connect, meter: Meter) -> None:
    made: list[Ingestion] = []

    def make() -> Ingestion:
        made.append(connect(account="lazy"))
        return made[0]

    served = Asgi()
    MeterMiddleware(served.app, ingestion=make)
    assert made == []
    served.serve(make, "cus_lazy", customer="x-customer-id")
    assert len(billed(meter, made[0], "cus_lazy")) == 1


def test_a_call_is_counted_once_by_nested_middlewares(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="nested")
    served = Asgi()
    inner: Any = MeterMiddleware(served.app, ingestion=ingestion, customer="x-customer-id")
    served.app = inner  # type: ignore[method-assign]
    served.serve(ingestion, "cus_nested", customer="x-customer-id")
    assert len(billed(meter, ingestion, "cus_nested")) == 1


@pytest.mark.parametrize(("code", "aborted"), [(1000, False), (1001, False), (1006, True)])
def test_how_a_websocket_ended(code: int, aborted: bool, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="ws")
    incoming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "one"},
        {"type": "websocket.disconnect", "code": code},
    ]

    async def app(_scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "two"})
        await receive()
        # As Starlette does where a handler does not catch it.
        raise RuntimeError("disconnected")

    async def receive() -> Any:  # noqa: ANN401
        return incoming.pop(0)

    async def send(_message: object) -> None:
        pass

    metered: Any = MeterMiddleware(app, ingestion=ingestion, customer=lambda _: f"cus_ws_{code}")
    scope = {"type": "websocket", "path": "/", "headers": []}
    with pytest.raises(RuntimeError):
        asyncio.run(metered(scope, receive, send))
    (event,) = billed(meter, ingestion, f"cus_ws_{code}")
    metadata = event["metadata"]
    assert (metadata["messages_received"], metadata["messages_sent"]) == (1, 1)
    assert metadata.get("aborted", False) == aborted


def test_lifespan_passes_through(connect: Connect) -> None:
    seen: list[str] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:  # noqa: ANN401
        seen.append(scope["type"])

    metered: Any = MeterMiddleware(app, ingestion=connect())
    asyncio.run(metered({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


def test_no_framework_is_imported_that_the_app_has_not() -> None:
    names = "{'aiohttp', 'django', 'flask', 'grpc', 'quart', 'starlette', 'typing_extensions'}"
    program = f"""
import sys
import dodo_ingestion.asgi, dodo_ingestion.wsgi, dodo_ingestion.metering
dodo_ingestion.asgi.MeterMiddleware(None, ingestion=lambda: None)
dodo_ingestion.wsgi.MeterMiddleware(None, ingestion=lambda: None)
assert not {names} & set(sys.modules), {names} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=WITHIN)


def test_the_options_have_a_public_type() -> None:
    assert "MeteringOptions" in metering.__all__
    options: metering.MeteringOptions = {"exclude": ["/health"]}
    assert set(options) < set(metering.MeteringOptions.__annotations__)


def test_a_call_that_nobody_meters_takes_every_word() -> None:
    set_customer({"type": "http"}, "cus_1")
    set_customer("cus_1")
    set_units(3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_a_client_is_made(connect: Connect) -> None:
    making, made = threading.Event(), threading.Event()

    def make() -> Ingestion:
        if os.getpid() == parent:
            making.set()
            assert made.wait(WITHIN)
        return ingestion

    parent = os.getpid()
    ingestion = connect(account="fork-making")
    client = Client(make)
    thread = threading.Thread(target=client.make)
    thread.start()
    assert making.wait(WITHIN)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = client.make() is not ingestion
        finally:
            os._exit(status)
    made.set()
    thread.join(WITHIN)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_app_that_was_made_before_a_fork(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="forked")
    for child in range(2):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                Asgi().serve(ingestion, f"cus_fork_{child}", customer="x-customer-id")
                ingestion.flush(timeout=WITHIN)
                status = 0
            finally:
                sys.stdout.flush()
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert len(meter.events(f"cus_fork_{child}")) == 1


def test_a_path_that_climbs_is_below_no_excluded_one(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="climbing")
    options: dict[str, Any] = {
        "customer": lambda _: "cus_climbing",
        "exclude": ["/internal/*", "/*"],
    }
    for path in [*CLIMBING, *STAYING]:
        Asgi(matched=False).serve(ingestion, path=path, **options)
    assert len(billed(meter, ingestion, "cus_climbing")) == len(CLIMBING)
