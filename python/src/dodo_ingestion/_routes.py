"""Which route took a request: its template, as each framework keeps it.

Where a framework leaves the route in the scope or the environ it is read from there: in the scope
that the framework was given, of which a middleware may have made a copy. Where it does not (Quart,
Falcon, Pyramid) a hook of the framework's own notes it. None of the frameworks is imported unless
the app has imported it.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dodo_ingestion._exchange import KEY, Exchange, current, exchange_of

_RELOAD_AFTER = 1.0
_ROUTERS = 16
_WRAPPERS = 32
_REST = "/{path:path}"
_WRAPPED = ("app", "application", "wsgi_app", "asgi_app", "wsgi", "__wrapped__")
"""Where wrappers of many kinds have what they wrap."""


class AsgiTemplates:
    """Finds templates in the scopes of finished requests."""

    def __init__(self) -> None:
        self._tables: dict[int, _Table] = {}

    def of(self, scope: Mapping[str, Any], path: str) -> str | None:
        """Return the template of the route that took the request, which came with this path."""
        if "path_template" in scope:
            template: str = scope["path_template"]
            if getattr(scope.get("route_handler"), "is_mount", False):
                return _litestar_mount(scope, path)
            return _litestar_catch_all(scope, template) or template or "/"
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return None
        router = scope.get("router")
        if router is None:
            return _path_of(scope.get("route"))
        table = self._tables.get(id(router))
        if table is None or table.router is not router:
            if len(self._tables) >= _ROUTERS:
                self._tables.clear()
            table = self._tables[id(router)] = _Table(router)
        return table.find(endpoint, scope)


@dataclass
class _Taken:
    """A template, with the path and the methods of the requests that it takes.

    For what is mounted the path is another; without methods it takes all.
    """

    template: str
    path: str
    methods: set[str] | None


@dataclass
class _Table:
    """The templates of a Starlette router and of what is mounted in it, by endpoint."""

    router: Any
    loaded_at: float = 0.0
    endpoints: dict[int, tuple[Any, list[_Taken]]] = field(default_factory=dict)
    routing: set[int] = field(default_factory=set)
    mounts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._load()

    def find(self, endpoint: object, scope: Mapping[str, Any]) -> str | None:
        found = self.endpoints.get(id(endpoint))
        if found is None:
            if id(endpoint) in self.routing:
                return None
            # Routes may have been added since; but what a middleware made up is never found.
            if time.monotonic() - self.loaded_at < _RELOAD_AFTER:
                return self._below_a_mount(scope)
            self._load()
            found = self.endpoints.get(id(endpoint))
            if found is None:
                return self._below_a_mount(scope)
        templates = found[1]
        if len(templates) == 1 and "app_root_path" not in scope:  # which a mount notes
            return templates[0].template
        root_path = scope.get("root_path", "")
        path = scope["path"]
        if not path.startswith(root_path):
            path = root_path + path  # an older Starlette's mounts have taken their part off
        path = path.removeprefix(_root(scope))
        taken = [each for each in templates if _compiled(each.path).match(path)]
        if not taken:
            return self._below_a_mount(scope) or templates[0].template
        method = scope.get("method")
        by_method = (each for each in taken if each.methods is None or method in each.methods)
        return next(by_method, taken[0]).template

    def _below_a_mount(self, scope: Mapping[str, Any]) -> str | None:
        """Make the template of a route that is not in the table: of what is mounted, say."""
        route = scope.get("route")
        path = _path_of(route)
        mounted_at = scope.get("root_path", "").removeprefix(_root(scope))
        if not mounted_at or path is None:
            return path
        mount = next((each for each in self.mounts if _compiled(each).match(mounted_at)), None)
        if mount is not None:
            # Starlette notes a mount like a route.
            return mount + path if hasattr(route, "endpoint") else mounted(mount)
        # Mounts in what is mounted, which only it knows.
        below = (each for each in self.mounts if _compiled(each + _REST).match(mounted_at))
        return next((mounted(each) for each in below), path)

    def _load(self) -> None:
        self.loaded_at = time.monotonic()
        self.endpoints.clear()
        self.routing.clear()
        self.mounts.clear()
        for template, path, endpoint, methods in self._walk(self.router.routes, ""):
            _, templates = self.endpoints.setdefault(id(endpoint), (endpoint, []))
            for each in templates:
                if (each.template, each.path) == (template, path):
                    each.methods = each.methods and methods and each.methods | methods
                    break
            else:
                templates.append(_Taken(template, path, methods))

    def _walk(self, routes: Any, prefix: str) -> Iterator[tuple[str, str, object, set[str] | None]]:
        for route in _flattened(routes):
            path = getattr(route, "path", None)
            endpoint = getattr(route, "endpoint", None)
            inner = _inner(route)
            if endpoint is not None and isinstance(path, str):
                methods = getattr(route, "methods", None)
                yield prefix + path, prefix + path, endpoint, set(methods) if methods else None
            elif inner:
                # A mount, or a host, which has no path. It takes no request by itself.
                self.routing.add(id(getattr(route, "app", None)))
                self.mounts.append(prefix + (path or ""))
                yield from self._walk(inner, prefix + (path or ""))
            elif isinstance(path, str) and hasattr(route, "app"):
                self.mounts.append(prefix + path)
                yield mounted(prefix + path), prefix + path + _REST, route.app, None


def _litestar_catch_all(scope: Mapping[str, Any], template: str) -> str | None:
    """Give what Litestar leaves out of a template: that it takes any rest of a path."""
    if not template.endswith("}"):
        return None
    # Those of the handler, without what its controller and routers stand at.
    paths = getattr(scope.get("route_handler"), "paths", ())
    taken = any(
        path.endswith(":path}") and template.endswith(re.sub(r":\w+}", "}", path)) for path in paths
    )
    return template[:-1] + ":path}" if taken else None


def _litestar_mount(scope: Mapping[str, Any], path: str) -> str:
    """Make the template of what Litestar has mounted, to which it gives none, or `/`."""
    app = scope.get("litestar_app", scope.get("app"))
    handler = scope["route_handler"]
    at = [each.path for each in app.routes if getattr(each, "route_handler", None) is handler]
    path = path.removeprefix(_root(scope))
    mount = next((each for each in sorted(at, reverse=True) if path.startswith(each)), at[0])
    return mounted(mount.rstrip("/"))


def _root(scope: Mapping[str, Any]) -> str:
    """Give what is before the app's own paths."""
    root: str = scope.get("app_root_path", scope.get("root_path", ""))
    return root


def mounted(mount: str) -> str:
    """Make the template of what is mounted and has no routes, or none that are known."""
    return mount + _REST


def _inner(route: Any) -> Any:
    """Find the routes of what is mounted, also behind middlewares of its own."""
    for _ in range(_WRAPPERS):
        routes = getattr(route, "routes", None)
        if routes or route is None:
            return routes
        route = getattr(route, "app", None)
    return None


def _flattened(routes: Any) -> Any:
    """Put in place the routes of routers, which newer FastAPI includes without copying."""
    fastapi = sys.modules.get("fastapi.routing")
    flatten = getattr(fastapi, "iter_route_contexts", None)
    return routes if flatten is None else flatten(routes)


def _path_of(route: object) -> str | None:
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else None


@functools.lru_cache(maxsize=1024)
def _compiled(template: str) -> re.Pattern[str]:
    from starlette.routing import compile_path

    return compile_path(template)[0]


class WsgiTemplates:
    """Finds the templates that Flask or Bottle left in the environs of an app's requests."""

    def __init__(self, app: object) -> None:
        self._app = app
        self._mounts: set[str] = set()
        self._loaded_at = -_RELOAD_AFTER

    def of(self, environ: Mapping[str, Any], path: str) -> str | None:
        """Return the template of the route that took the request, which came with this path."""
        rule = getattr(getattr(_flask_request(environ), "url_rule", None), "rule", None)
        if rule is None:
            return self._of_bottle(environ, path)
        if not isinstance(rule, str):
            return None
        path_info = environ.get("PATH_INFO", "")
        if path_info == path:
            return rule
        return self._front(_moved(environ, path, path_info)) + rule

    def _of_bottle(self, environ: Mapping[str, Any], path: str) -> str | None:
        route: Any = environ.get("bottle.route")
        rule = getattr(route, "rule", None)
        if not isinstance(rule, str):
            return None
        raw_path = environ.get("bottle.raw_path", path)
        if raw_path == path:
            return rule
        app = environ["bottle.app"]
        if "mountpoint.target" in route.config and route not in app.routes:
            return None  # what is mounted there has no route for it
        # Bottle has put back the paths that the app was mounted with, in its own encoding.
        path_info: str = environ["PATH_INFO"]
        own_path = _decoded(raw_path)
        mount = path_info.removesuffix(own_path).rstrip("/") if path_info.endswith(own_path) else ""
        if mount and app is route.app:
            # It may be mounted elsewhere too, without WSGI: its rules then begin with that prefix.
            rule = "/" + rule.removeprefix(app.config.get("_mount.prefix", "/"))
        return self._front(_moved(environ, _decoded(path), path_info) + mount) + rule

    def _front(self, moved: str) -> str:
        """Give what comes before a rule: the mounts, and `/*` for what a client may have chosen."""
        if not moved:
            return ""
        # Mounts may have been added since.
        if moved not in self._mounts and time.monotonic() - self._loaded_at >= _RELOAD_AFTER:
            self._mounts = set(_mounts(self._app))
            self._loaded_at = time.monotonic()
        known = moved
        while known and known not in self._mounts:
            known = known.rpartition("/")[0]
        return moved if known == moved else known + "/*"


def _flask_request(environ: Mapping[str, Any]) -> object:
    """Give Flask's request of an environ.

    A context that a view copies for a thread takes it out of the environ when that has ended.
    """
    request = environ.get("werkzeug.request")
    flask = sys.modules.get("flask")
    if request is not None or flask is None or "werkzeug.request" not in environ:
        return request
    if flask.has_request_context() and flask.request.environ is environ:
        return flask.request
    return None


def _moved(environ: Mapping[str, Any], path: str, path_info: str) -> str:
    """Give what others, such as werkzeug's dispatcher, have moved from the path to SCRIPT_NAME.

    A proxy's middleware writes there too, what a client's header says.
    """
    moved = path.rstrip("/").removesuffix(path_info.rstrip("/")).rstrip("/")
    return moved if environ.get("SCRIPT_NAME", "").rstrip("/").endswith(moved) else ""


def _mounts(app: object, above: str = "", around: tuple[object, ...] = ()) -> Iterator[str]:
    """Give where an app, or what it wraps, has others mounted, and these again."""
    for owner in _behind(app):
        if any(owner is each for each in around):
            return
        around += (owner,)
        for at, inner in _mounted_in(owner):
            yield above + at
            yield from _mounts(inner, above + at, around)


def _mounted_in(app: Any) -> Iterator[tuple[str, object]]:
    werkzeug = sys.modules.get("werkzeug.middleware.dispatcher")
    if werkzeug is not None and isinstance(app, werkzeug.DispatcherMiddleware):
        for at, inner in list(app.mounts.items()):
            yield at.rstrip("/"), inner
    bottle = sys.modules.get("bottle")
    if bottle is not None and isinstance(app, bottle.Bottle):
        for route in app.routes:
            if "mountpoint.target" in route.config:
                at = route.config["mountpoint.prefix"].strip("/")
                yield f"/{at}", route.config["mountpoint.target"]


def _decoded(path: str) -> str:
    return path.encode("latin-1").decode(errors="ignore")


def watch(app: object) -> None:
    """Have a framework say of its route what the middleware cannot see by itself."""
    if "quart" in sys.modules:
        _watch_quart()
    if "flask" in sys.modules:
        _watch_flask()
    for module, name in (("starlette.routing", "Router"), ("litestar.app", "Litestar")):
        if module in sys.modules:
            _watch_scopes(getattr(sys.modules[module], name))
    for owner in _behind(app):
        modules = {cls.__module__.partition(".")[0] for cls in type(owner).__mro__}
        if "falcon" in modules:
            asynchronous = any(cls.__module__ == "falcon.asgi.app" for cls in type(owner).__mro__)
            owner.add_middleware(_AsyncFalconHook() if asynchronous else _FalconHook())
            return
        if "pyramid" in modules:
            _watch_pyramid(owner.registry)
            return


def _behind(app: Any) -> Iterator[Any]:
    """Give an app, and what it wraps."""
    for _ in range(_WRAPPERS):
        if app is None:
            return
        owner = getattr(app, "__self__", app)
        yield owner
        app = next((each for name in _WRAPPED if (each := getattr(owner, name, None))), None)


@functools.cache
def _watch_scopes(framework: Any) -> None:
    """See the scopes that routers are given, of which the meter may have had another copy.

    In these they note the route. They have no hook that is called with it.
    """
    call = framework.__call__

    @functools.wraps(call)
    async def watched(self: Any, scope: Any, receive: Any, send: Any) -> None:
        exchange = scope.get(KEY)
        if (
            exchange is not None
            and exchange.request is not scope
            and not exchange.finished
            and not _is_routed(exchange.request)
        ):
            exchange.request = scope
        await call(self, scope, receive, send)

    framework.__call__ = watched


def _is_routed(scope: Mapping[str, Any]) -> bool:
    """Whether a route has the request, which may ask the app for others; not a mount."""
    route = scope.get("route")
    if route is not None:
        return hasattr(route, "endpoint")
    # FastAPI does not tell of its mounts, nor does an older Starlette of its routes.
    endpoint = scope.get("endpoint")
    return "path_template" in scope or inspect.isroutine(endpoint) or inspect.isclass(endpoint)


def _note(exchange: Exchange | None, template: object) -> None:
    if exchange is not None and isinstance(template, str):
        exchange.route = template


async def _quart_hook(_sender: object, **_arguments: object) -> None:
    from quart import request, websocket
    from quart.ctx import has_request_context

    served = request if has_request_context() else websocket
    _note(current.get(), getattr(served.url_rule, "rule", None))


def _watch_quart() -> None:
    from quart.signals import request_started, websocket_started

    for signal in (request_started, websocket_started):
        signal.connect(_quart_hook)


def _flask_hook(_sender: object, **_arguments: object) -> None:
    """Look now: a view's exception that goes on to the server leaves no request in the environ."""
    from flask import request

    find_route = getattr(exchange_of(request), "find_route", None)
    if find_route is not None:
        find_route()


def _watch_flask() -> None:
    from flask.signals import got_request_exception

    got_request_exception.connect(_flask_hook)


class _FalconHook:
    def process_resource(self, req: Any, *_rest: object) -> None:
        _note(exchange_of(req), req.uri_template)

    # Where another's `process_resource`, which comes first, has answered.
    process_response = process_resource


class _AsyncFalconHook:
    async def process_resource(self, req: Any, *_rest: object) -> None:
        _note(exchange_of(req), req.uri_template)

    process_response = process_resource_ws = process_resource


def _watch_pyramid(registry: Any) -> None:
    from pyramid.interfaces import IBeforeTraversal

    def hook(event: Any) -> None:
        route = getattr(event.request, "matched_route", None)
        if route is not None:
            _note(exchange_of(event.request), f"/{route.pattern.lstrip('/')}")

    registry.registerHandler(hook, (IBeforeTraversal,))


def climbs(path: str) -> bool:
    """Whether a path leaves its directory once somebody behind this server resolves it."""
    path = path.lower().replace("%2e", ".")
    path = path.replace("%2f", "/").replace("%5c", "/").replace("\\", "/")
    # Some servers take what follows a semicolon for a parameter of the segment.
    return any(part == ".." or part.startswith("..;") for part in path.split("/"))
