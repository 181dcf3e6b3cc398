"""The same small API in each WSGI framework, metered in one line."""

import time
import warnings
from collections.abc import Iterator
from typing import Any

import bottle
import falcon
import flask
from serving import CHUNKS
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from dodo_ingestion import Ingestion
from dodo_ingestion.wsgi import (
    MeterMiddleware,
    set_customer,
    set_metadata,
    set_units,
    skip_metering,
)

with warnings.catch_warnings():
    # Of what Pyramid imports.
    warnings.simplefilter("ignore")
    import pyramid.config
    import pyramid.response

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD"]


def chunks() -> Iterator[bytes]:
    for chunk in CHUNKS:
        yield chunk
        time.sleep(0.02)


def endless() -> Iterator[bytes]:
    while True:
        yield b"more " * 1000
        time.sleep(0.01)


def mark(request: object, customer: str) -> None:
    set_customer(request, customer)
    set_units(request, 3)
    set_metadata(request, {"plan": "pro", "long": "x" * 600, "status_code": 1})


def flask_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    app = flask.Flask(__name__)

    @app.route("/status/<int:code>", methods=METHODS)
    def status(code: int) -> tuple[str, int]:
        return "", code

    @app.get("/users/<int:id>")
    def user(id: int) -> str:  # noqa: A002
        return str(id)

    @app.get("/marked/<customer>")
    def marked(customer: str) -> str:
        mark(flask.request, customer)
        return "ok"

    @app.get("/marked-by-thread/<customer>")
    def marked_by_thread(customer: str) -> str:
        set_customer(customer)
        set_units(2.5)
        return "ok"

    @app.get("/skipped")
    def skipped() -> str:
        skip_metering(flask.request)
        return "ok"

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(flask.stream_with_context(chunks()))

    @app.get("/endless")
    def never() -> flask.Response:
        return flask.Response(endless())

    @app.get("/file")
    def file() -> flask.Response:
        return flask.send_file(__file__)

    @app.get("/boom")
    def boom() -> str:
        raise RuntimeError("boom")

    blueprint = flask.Blueprint("v1", __name__, url_prefix="/v1")

    @blueprint.get("/teams/<team>")
    def team(team: str) -> str:
        return team

    app.register_blueprint(blueprint)
    below = flask.Flask("below")

    @below.get("/things/<thing>")
    def thing(thing: str) -> str:
        return thing

    metered: Any = MeterMiddleware(
        DispatcherMiddleware(app.wsgi_app, {"/below": below}),
        ingestion=ingestion,
        customer="x-customer-id",
    )
    app.wsgi_app = metered  # type: ignore[method-assign]
    return app, {
        "/users/7": "/users/<int:id>",
        "/users/7?token=secret": "/users/<int:id>",
        "/v1/teams/a": "/v1/teams/<team>",
        "/below/things/x": "/below/things/<thing>",
    }


def bottle_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    app = bottle.Bottle()

    @app.route("/status/<code:int>", method=METHODS)  # type: ignore[untyped-decorator]
    def status(code: int) -> None:
        bottle.response.status = code

    @app.get("/users/<id>")  # type: ignore[untyped-decorator]
    def user(id: str) -> str:  # noqa: A002
        return id

    @app.get("/marked/<customer>")  # type: ignore[untyped-decorator]
    def marked(customer: str) -> str:
        mark(bottle.request, customer)
        return "ok"

    @app.get("/skipped")  # type: ignore[untyped-decorator]
    def skipped() -> str:
        skip_metering(bottle.request)
        return "ok"

    @app.get("/stream")  # type: ignore[untyped-decorator]
    def stream() -> Iterator[bytes]:
        return chunks()

    @app.get("/endless")  # type: ignore[untyped-decorator]
    def never() -> Iterator[bytes]:
        return endless()

    @app.get("/boom")  # type: ignore[untyped-decorator]
    def boom() -> str:
        raise RuntimeError("boom")

    below = bottle.Bottle()

    @below.get("/things/<thing>")  # type: ignore[untyped-decorator]
    def thing(thing: str) -> str:
        return thing

    def plain(_environ: object, start_response: Any) -> list[bytes]:  # noqa: ANN401
        start_response("200 OK", [])
        return [b"ok"]

    below.mount("/plain/", plain)
    app.mount("/plain/", plain)
    app.mount("/below/", below)
    with warnings.catch_warnings():
        # Of mounts that Bottle serves by WSGI.
        warnings.simplefilter("ignore", DeprecationWarning)
        app.mount("/again/", below)
        app.mount("/other", below)
    metered = MeterMiddleware(
        DispatcherMiddleware(app, {"/all": app}), ingestion=ingestion, customer="x-customer-id"
    )
    return metered, {
        "/users/7": "/users/<id>",
        "/below/things/x": "/below/things/<thing>",
        "/again/things/x": "/again/things/<thing>",
        "/other/things/x": "/other/things/<thing>",
        "/all/other/things/x": "/all/other/things/<thing>",
        "/other/secret": "",
        "/plain/secret": "/plain/<:re:.*>",
        "/other/plain/secret": "/other/plain/<:re:.*>",
    }


def pyramid_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    def respond(request: Any) -> Any:  # noqa: ANN401
        name = request.matched_route.name
        response = pyramid.response.Response(b"ok")
        if name == "status":
            response.status_int = int(request.matchdict["code"])
        elif name == "marked":
            mark(request, request.matchdict["customer"])
        elif name == "skipped":
            skip_metering(request)
        elif name == "boom":
            raise RuntimeError("boom")
        elif name in ("stream", "endless"):
            response.app_iter = chunks() if name == "stream" else endless()
        return response

    def teams(config: Any) -> None:  # noqa: ANN401
        config.add_route("team", "/teams/{team}")
        config.add_view(respond, route_name="team")

    with pyramid.config.Configurator() as config:
        for name, pattern in {
            "status": "/status/{code}",
            "user": "/users/{id}",
            "marked": "/marked/{customer}",
            "skipped": "/skipped",
            "stream": "/stream",
            "endless": "/endless",
            "boom": "/boom",
        }.items():
            config.add_route(name, pattern)
            config.add_view(respond, route_name=name)
        config.include(teams, route_prefix="/v1")
        app = config.make_wsgi_app()
    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    return metered, {"/users/7": "/users/{id}", "/v1/teams/a": "/v1/teams/{team}"}


class _Status:
    def on_get(self, _req: Any, resp: Any, code: int) -> None:  # noqa: ANN401
        resp.status = code

    on_post = on_put = on_delete = on_head = on_get


class _User:
    def on_get(self, _req: Any, resp: Any, **_params: str) -> None:  # noqa: ANN401
        resp.text = "ok"


class _Marked:
    def on_get(self, req: Any, resp: Any, customer: str) -> None:  # noqa: ANN401
        mark(req, customer)
        resp.text = "ok"


class _Skipped:
    def on_get(self, req: Any, resp: Any) -> None:  # noqa: ANN401
        skip_metering(req)
        resp.text = "ok"


class _Stream:
    def on_get(self, req: Any, resp: Any) -> None:  # noqa: ANN401
        resp.stream = endless() if req.path == "/endless" else chunks()


class _Boom:
    def on_get(self, _req: Any, _resp: Any) -> None:  # noqa: ANN401
        raise RuntimeError("boom")


def falcon_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    app: Any = falcon.App()
    app.add_route("/status/{code:int}", _Status())
    app.add_route("/users/{id}", _User())
    app.add_route("/marked/{customer}", _Marked())
    app.add_route("/skipped", _Skipped())
    app.add_route("/stream", _Stream())
    app.add_route("/endless", _Stream())
    app.add_route("/boom", _Boom())
    metered = MeterMiddleware(app, ingestion=ingestion, customer="x-customer-id")
    return metered, {"/users/7": "/users/{id}"}
