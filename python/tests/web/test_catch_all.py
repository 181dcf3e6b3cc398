"""A 404 of a route for whatever is left of a path is that of no route, in each framework."""

import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import bottle
import django_site  # noqa: F401 - the settings
import falcon
import falcon.asgi
import flask
import litestar
import pytest
import quart
from aiohttp import web
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path, re_path
from fastapi import FastAPI, Response
from litestar.types import Receive, Scope, Send
from serving import WITHIN, Site, aiohttp_server, asgi, open_client, plain_wsgi
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from conftest import Meter
from dodo_ingestion import Ingestion, aiohttp
from dodo_ingestion.asgi import MeterMiddleware
from dodo_ingestion.wsgi import MeterMiddleware as WsgiMiddleware

with warnings.catch_warnings():
    # Of what Pyramid imports.
    warnings.simplefilter("ignore")
    import pyramid.config
    import pyramid.response


def fastapi_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = FastAPI()
    app.add_middleware(MeterMiddleware, ingestion=ingestion, customer="x-customer-id")

    @app.get("/{rest:path}")
    async def rest(rest: str) -> Response:
        return Response(rest, status_code=404)

    return app


def starlette_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    async def rest(_request: object) -> Any:  # noqa: ANN401
        return PlainTextResponse("no", status_code=404)

    app = Starlette(routes=[Route("/{rest:path}", rest)])
    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def litestar_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    @litestar.get("/{rest:path}")
    async def rest() -> litestar.Response[None]:
        return litestar.Response(None, status_code=404)

    app = litestar.Litestar([rest], logging_config=None, openapi_config=None)
    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def litestar_controller(ingestion: Ingestion) -> Any:  # noqa: ANN401
    class Secrets(litestar.Controller):
        path = "/secret"

        @litestar.get("/{rest:path}")
        async def rest(self) -> litestar.Response[None]:
            return litestar.Response(None, status_code=404)

    app = litestar.Litestar([Secrets], logging_config=None, openapi_config=None)
    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def litestar_mount(ingestion: Ingestion) -> Any:  # noqa: ANN401
    @litestar.asgi("/", is_mount=True, copy_scope=True)
    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("no", status_code=404)(scope, receive, send)  # type: ignore[arg-type]

    app = litestar.Litestar([rest], logging_config=None, openapi_config=None)
    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def static_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = Starlette(routes=[Mount("/", StaticFiles(directory="."))])
    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def static_below_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = Starlette(routes=[Mount("/secret", StaticFiles(directory="."))])
    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def flask_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = flask.Flask(__name__)

    @app.get("/<path:rest>")
    def rest(rest: str) -> tuple[str, int]:
        return rest, 404

    return WsgiMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def bottle_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = bottle.Bottle()

    @app.get("/<rest:path>")  # type: ignore[untyped-decorator]
    def rest(rest: str) -> Any:  # noqa: ANN401
        return bottle.HTTPResponse(rest, 404)

    return WsgiMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def falcon_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    class Rest:
        def on_get(self, _req: object, resp: Any, **_rest: str) -> None:  # noqa: ANN401
            resp.status = 404

    app: Any = falcon.App()
    app.add_route("/{rest:path}", Rest())
    return WsgiMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def falcon_asgi_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    class Rest:
        async def on_get(self, _req: object, resp: Any, **_rest: str) -> None:  # noqa: ANN401
            resp.status = 404

    app: Any = falcon.asgi.App()
    app.add_route("/{rest:path}", Rest())
    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def quart_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = quart.Quart(__name__)

    @app.get("/<path:rest>")
    async def rest(rest: str) -> tuple[str, int]:
        return rest, 404

    return MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def pyramid_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    with pyramid.config.Configurator() as config:
        config.add_route("rest", "/*rest")
        config.add_view(lambda _: pyramid.response.Response(status=404), route_name="rest")
        app = config.make_wsgi_app()
    return WsgiMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def aiohttp_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    async def rest(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    app = web.Application()
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    app.router.add_get("/{rest:.*}", rest)
    return app


def aiohttp_static_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = web.Application()
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    app.router.add_static("/", ".")
    return app


def aiohttp_below_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    async def rest(_request: web.Request) -> web.Response:
        return web.Response(status=404)

    app = web.Application()
    aiohttp.setup(app, ingestion=ingestion, customer="x-customer-id")
    app.router.add_get("/secret/{rest:.*}", rest)
    return app


def bottle_regex_app(ingestion: Ingestion) -> Any:  # noqa: ANN401
    app = bottle.Bottle()
    app.route("/<rest:re:.*>", callback=lambda rest: bottle.HTTPResponse(rest, status=404))
    return WsgiMiddleware(app, ingestion=ingestion, customer="x-customer-id")


def django_app(
    pattern: Any,  # noqa: ANN401
    serve: Callable[[], Any] = get_wsgi_application,
) -> Callable[[Ingestion], Any]:
    def make(ingestion: Ingestion) -> Any:  # noqa: ANN401
        urls: Any = ModuleType("urls")
        urls.urlpatterns = [pattern]
        settings.DODO_INGESTION = {"ingestion": ingestion, "customer": "x-customer-id"}
        settings.ROOT_URLCONF = urls
        return serve()

    return make


def missing(_request: object, **_rest: str) -> HttpResponse:
    return HttpResponse(status=404)


FRAMEWORKS: dict[str, tuple[Any, Callable[[Ingestion], Any]]] = {
    "fastapi": (asgi, fastapi_app),
    "starlette": (asgi, starlette_app),
    "litestar": (asgi, litestar_app),
    "litestar-controller": (asgi, litestar_controller),
    "litestar-mount": (asgi, litestar_mount),
    "static": (asgi, static_app),
    "static-below": (asgi, static_below_app),
    "quart": (asgi, quart_app),
    "falcon-asgi": (asgi, falcon_asgi_app),
    "django-asgi": (asgi, django_app(path("<path:rest>", missing), get_asgi_application)),
    "flask": (plain_wsgi, flask_app),
    "bottle": (plain_wsgi, bottle_app),
    "falcon": (plain_wsgi, falcon_app),
    "pyramid": (plain_wsgi, pyramid_app),
    "django-path": (plain_wsgi, django_app(path("<path:rest>", missing))),
    "django-named": (plain_wsgi, django_app(re_path(r"^(?P<rest>.*)$", missing))),
    "django-below": (plain_wsgi, django_app(re_path(r"^secret/(?P<rest>.*)$", missing))),
    "django-bare": (plain_wsgi, django_app(re_path(".*", missing))),
    "aiohttp": (aiohttp_server, aiohttp_app),
    "aiohttp-static": (aiohttp_server, aiohttp_static_app),
    "aiohttp-below": (aiohttp_server, aiohttp_below_app),
    "bottle-regex": (plain_wsgi, bottle_regex_app),
}


def test_another_path_of_the_same_handler_takes_no_rest(meter: Meter) -> None:
    @litestar.get(["/rest/{name:path}", "/secret/{name:str}"])
    async def named() -> litestar.Response[None]:
        return litestar.Response(None, status_code=404)

    ingestion = open_client(meter, "litestar-paths")
    app: Any = litestar.Litestar([named], logging_config=None, openapi_config=None)
    metered: Any = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    with asgi(metered) as port:
        site = Site("litestar-paths", port, ingestion, meter)
        assert site.call("GET", "/secret/path", site.customer("named"))[0] == 404
        event = site.event(site.customer("named"))
    assert (event["event_name"], event["metadata"]["endpoint"]) == ("api_call", "/secret/{name}")
    ingestion.close(timeout=WITHIN)


@pytest.fixture
def urls() -> Iterator[None]:
    before = settings.ROOT_URLCONF
    yield
    settings.ROOT_URLCONF = before


@pytest.mark.usefixtures("urls")
@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_404_of_a_catch_all(name: str, meter: Meter) -> None:
    server, make = FRAMEWORKS[name]
    ingestion = open_client(meter, f"catch-all-{name}")
    with server(make(ingestion)) as port:
        site = Site(f"catch-all-{name}", port, ingestion, meter)
        assert site.call("GET", "/secret/path", site.customer("rest"))[0] == 404
        event = site.event(site.customer("rest"))
    assert event["event_name"] == "api_error"
    assert event["metadata"]["endpoint"]
    # The prefix that the app has written, and no more of the path.
    assert "/path" not in str(event["metadata"])
    ingestion.close(timeout=WITHIN)
