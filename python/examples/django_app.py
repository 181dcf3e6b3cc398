"""A metered Django project in one file: `uvicorn django_app:application`."""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="example",  # noqa: S106
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["dodo_ingestion.django.MeterMiddleware"],
    # The client is made of DODO_PAYMENTS_API_KEY and DODO_INGESTION_EVENT_NAME.
    DODO_INGESTION={"customer": "x-customer-id"},
)
django.setup()


def user(_request: HttpRequest, id: int) -> JsonResponse:  # noqa: A002
    """Answer."""
    return JsonResponse({"id": id})


urlpatterns = [path("users/<int:id>", user)]
application = get_asgi_application()
