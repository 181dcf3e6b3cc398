"""Middlewares between the meter and the app that copy the scope, or hide the framework."""

import asyncio
import copy
import gc
import warnings
import weakref
import wsgiref.util
from collections.abc import Callable
from typing import Any

import falcon
import falcon.asgi
import litestar
import pytest
from asgi_served import call
from fastapi import FastAPI, HTTPException, Request
from serving import billed
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.proxy_fix import ProxyFix

from conftest import Connect, Meter
from dodo_ingestion.asgi import MeterMiddleware
from dodo_ingestion.wsgi import MeterMiddleware as WsgiMiddleware

with warnings.catch_warnings():
    # Of what Pyramid imports.
    warnings.simplefilter("ignore")
    import pyramid.config
    import pyramid.response


class Copying:
    """A middleware that changes the scope, and copies it first, as the specification asks."""

    def __init__(self, wrapped: Any) -> None:  # noqa: ANN401
        self._wrapped = wrapped

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
        await self._wrapped({**scope, "plan": "pro"}, receive, send)


class Showing(Copying):
    """One that shows what it wraps."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401
        super().__init__(app)
        self.app = app


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_scope_can_be_copied(copied: Any, connect: Connect, meter: Meter) -> None:  # noqa: ANN401
    ingestion = connect(account="copied")
    customer = f"cus_copied_{copied.__name__}"

    async def app(scope: Any, _receive: object, send: Any) -> None:  # noqa: ANN401
        scope = {key: copied(value) for key, value in scope.items()}
        scope["dodo_ingestion.exchange"].units = 3
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"all"})

    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    assert asyncio.run(call(metered, "/", customer)) == 200
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["units"] == 3


def fastapi_app(*, mounted: bool) -> FastAPI:
    app = FastAPI()

    @app.get("/items/{item}")
    async def item(item: str) -> str:
        raise HTTPException(404, item)

    if not mounted:
        return app
    outer = FastAPI()
    outer.mount("/tenants/{tenant}", Showing(app))
    return outer


def starlette_app(*, mounted: bool) -> Starlette:
    async def item(request: Request) -> Any:  # noqa: ANN401
        return PlainTextResponse(request.path_params["item"], status_code=404)

    routes = [Route("/items/{item}", item)]
    if not mounted:
        return Starlette(routes=routes)
    return Starlette(routes=[Mount("/tenants/{tenant}", Showing(Starlette(routes=routes)))])


def litestar_app(**_mounted: bool) -> litestar.Litestar:
    @litestar.get("/items/{item:str}")
    async def item(request: litestar.Request[Any, Any, Any]) -> litestar.Response[str]:
        return litestar.Response(request.path_params["item"], status_code=404)

    return litestar.Litestar([item], logging_config=None, openapi_config=None)


@pytest.mark.parametrize(
    ("make", "mounted"),
    [
        (fastapi_app, False),
        (fastapi_app, True),
        (starlette_app, False),
        (starlette_app, True),
        (litestar_app, False),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_the_route_is_that_of_the_copy(
    make: Callable[..., Any], mounted: bool, inside: bool, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="copied-route")
    customer = f"cus_{make.__name__}_{mounted}_{inside}"
    options: dict[str, Any] = {"metadata": lambda scope: {"plan": scope["plan"]}}
    options |= {"ingestion": ingestion, "customer": "x-customer-id"}
    app = make(mounted=mounted)
    if inside and hasattr(app, "add_middleware"):
        app.add_middleware(Copying)
        app.add_middleware(MeterMiddleware, **options)
    else:
        app = MeterMiddleware(Copying(app), **options)
    prefix = "/tenants/acme" if mounted else ""
    assert asyncio.run(call(app, f"{prefix}/items/7", customer)) == 404
    assert asyncio.run(call(app, f"{prefix}/nothing", customer)) == 404
    item, nothing = sorted(
        billed(meter, ingestion, customer), key=lambda each: each["event_name"] == "api_error"
    )
    template = "/tenants/{tenant}/items/{item}" if mounted else "/items/{item}"
    assert (item["event_name"], item["metadata"]["endpoint"]) == ("api_call", template)
    assert item["metadata"]["plan"] == "pro"
    assert (nothing["event_name"], nothing["metadata"].get("endpoint")) == ("api_error", None)


@pytest.mark.parametrize("copying", [False, True])
def test_a_handler_that_asks_its_app(copying: bool, connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="asks-itself")
    customer = f"cus_asks_itself_{copying}"
    app = fastapi_app(mounted=False)

    @app.get("/batch")
    async def batch(request: Request) -> int:
        return await call(
            lambda scope, *rest: app({**request.scope, **scope}, *rest), "/items/7", ""
        )

    served = Copying(app) if copying else app
    metered = MeterMiddleware(served, ingestion=ingestion, customer="x-customer-id")
    assert asyncio.run(call(metered, "/batch", customer)) == 200
    (event,) = billed(meter, ingestion, customer)
    assert event["metadata"]["endpoint"] == "/batch"


def test_a_copy_leaves_nothing_to_the_garbage_collector(connect: Connect) -> None:
    ingestion = connect(account="copied-garbage")
    metered: Any = MeterMiddleware(
        Copying(starlette_app(mounted=False)), ingestion=ingestion, customer="x-customer-id"
    )

    class Sent(list[object]):
        pass

    async def main() -> weakref.ref[Sent]:
        sent = Sent()

        async def send(message: object) -> None:
            sent.append(message)

        headers = [(b"x-customer-id", b"cus_copied_garbage")]
        scope = {"type": "http", "method": "GET", "path": "/items/7", "headers": headers}
        await metered({**scope, "sent": sent}, lambda: None, send)
        assert sent
        return weakref.ref(sent)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()


class Item:
    def on_get(self, _req: object, resp: Any, item: str) -> None:  # noqa: ANN401
        resp.text, resp.status = item, 404


class AsyncItem:
    async def on_get(self, _req: object, resp: Any, item: str) -> None:  # noqa: ANN401
        resp.text, resp.status = item, 404


def falcon_app() -> Any:  # noqa: ANN401
    app: Any = falcon.App()
    app.add_route("/items/{item}", Item())
    return app


def pyramid_app() -> Any:  # noqa: ANN401
    with pyramid.config.Configurator() as config:
        config.add_route("item", "/items/{item}")
        config.add_view(lambda _: pyramid.response.Response(status=404), route_name="item")
        return config.make_wsgi_app()


@pytest.mark.parametrize("make", [falcon_app, pyramid_app])
@pytest.mark.parametrize("attribute", ["app", "application", "wsgi_app"])
def test_a_wsgi_framework_behind_wrappers(
    make: Callable[[], Any], attribute: str, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="wrapped")
    customer = f"cus_wrapped_{make.__name__}_{attribute}"

    class Wrapper:
        def __init__(self, wrapped: Any) -> None:  # noqa: ANN401
            setattr(self, attribute, wrapped)

        def __call__(self, environ: Any, start_response: Any) -> Any:  # noqa: ANN401
            return getattr(self, attribute)(dict(environ), start_response)

    served = Wrapper(ProxyFix(make()))
    metered = WsgiMiddleware(served.__call__, ingestion=ingestion, customer="x-customer-id")
    environ: dict[str, Any] = {"PATH_INFO": "/items/7", "HTTP_X_CUSTOMER_ID": customer}
    wsgiref.util.setup_testing_defaults(environ)
    list(metered(environ, lambda *_arguments: lambda _: None))
    (event,) = billed(meter, ingestion, customer)
    assert (event["event_name"], event["metadata"]["endpoint"]) == ("api_call", "/items/{item}")


def test_falcon_behind_a_wrapper_under_asgi(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="wrapped-asgi")
    falcon_: Any = falcon.asgi.App()
    falcon_.add_route("/items/{item}", AsyncItem())
    metered = MeterMiddleware(Showing(falcon_), ingestion=ingestion, customer="x-customer-id")
    assert asyncio.run(call(metered, "/items/7", "cus_wrapped_asgi")) == 404
    (event,) = billed(meter, ingestion, "cus_wrapped_asgi")
    assert (event["event_name"], event["metadata"]["endpoint"]) == ("api_call", "/items/{item}")
