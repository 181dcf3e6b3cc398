"""The same small API in Django, metered by settings: URLs, and both kinds of views."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import include, path, re_path
from serving import CHUNKS, WAITING

from dodo_ingestion import Ingestion
from dodo_ingestion.django import set_customer, set_metadata, set_units, skip_metering

if not settings.configured:
    settings.configure(
        SECRET_KEY="test",  # noqa: S106
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["dodo_ingestion.django.MeterMiddleware"],
        LOGGING_CONFIG=None,
    )
    django.setup()


def status(_request: Any, code: int) -> HttpResponse:  # noqa: ANN401
    return HttpResponse(status=code)


def ok(_request: Any, **_arguments: str) -> HttpResponse:  # noqa: ANN401
    return HttpResponse(b"ok")


async def later(_request: Any, **_arguments: str) -> HttpResponse:  # noqa: ANN401
    return HttpResponse(b"ok")


def marked(request: Any, customer: str) -> HttpResponse:  # noqa: ANN401
    set_customer(request, customer)
    set_units(request, 3)
    set_metadata(request, {"plan": "pro", "long": "x" * 600, "status_code": 1})
    return HttpResponse(b"ok")


def skipped(request: Any) -> HttpResponse:  # noqa: ANN401
    skip_metering(request)
    return HttpResponse(b"ok")


def chunks() -> Iterator[bytes]:
    for chunk in CHUNKS:
        yield chunk
        time.sleep(0.02)


async def async_chunks() -> AsyncIterator[bytes]:
    for chunk in CHUNKS:
        yield chunk
        await asyncio.sleep(0.02)


def stream(request: Any) -> StreamingHttpResponse:  # noqa: ANN401
    return StreamingHttpResponse(async_chunks() if hasattr(request, "scope") else chunks())


def never() -> Iterator[bytes]:
    while True:
        yield b"more " * 1000
        time.sleep(0.01)


async def async_never() -> AsyncIterator[bytes]:
    while True:
        yield b"more " * 1000
        await asyncio.sleep(0.01)


def endless(request: Any) -> StreamingHttpResponse:  # noqa: ANN401
    return StreamingHttpResponse(async_never() if hasattr(request, "scope") else never())


async def patient(_request: Any) -> HttpResponse:  # noqa: ANN401
    WAITING.set()
    await asyncio.sleep(60)
    return HttpResponse(b"ok")


def file(_request: Any) -> FileResponse:  # noqa: ANN401
    return FileResponse(open(__file__, "rb"))


LARGE = 50_000_000


def large(_request: Any) -> FileResponse:  # noqa: ANN401
    return FileResponse(io.BytesIO(bytes(LARGE)))


def sync_stream(_request: Any) -> StreamingHttpResponse:  # noqa: ANN401
    return StreamingHttpResponse(b"\0" * 65536 for _ in range(LARGE // 65536))


def boom(_request: Any) -> HttpResponse:  # noqa: ANN401
    raise RuntimeError("boom")


urlpatterns = [
    path("status/<int:code>", status),
    path("users/<int:id>/", ok),
    path("later/<int:id>/", later),
    path("marked/<str:customer>", marked),
    path("skipped", skipped),
    path("stream", stream),
    path("endless", endless),
    path("patient", patient),
    path("file", file),
    path("large", large),
    path("sync-stream", sync_stream),
    path("boom", boom),
    path("v1/", include(([path("teams/<team>", ok)], "teams"), namespace="v1")),
    re_path(r"^years/(?P<year>[0-9]{4})/$", ok),
]

ROUTES = {
    "/users/7/": "/users/<int:id>/",
    "/users/7/?token=secret": "/users/<int:id>/",
    "/later/7/": "/later/<int:id>/",
    "/v1/teams/a": "/v1/teams/<team>",
    "/years/2026/": "/years/(?P<year>[0-9]{4})/",
}


def make(kind: Callable[[], Any], ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    settings.DODO_INGESTION = {"ingestion": ingestion, "customer": "x-customer-id"}
    return kind(), ROUTES


def django_asgi_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    return make(get_asgi_application, ingestion)


def django_wsgi_app(ingestion: Ingestion) -> tuple[Any, dict[str, str]]:
    return make(get_wsgi_application, ingestion)
