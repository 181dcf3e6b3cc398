import pickle
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import dodo_ingestion
from conftest import Connect
from dodo_ingestion import (
    ConfigurationError,
    Ingestion,
    IngestionError,
    ValidationError,
    _native,
    create_batch,
    track_api_call,
    track_object_storage,
    track_stream_bytes,
    track_time_range,
)


def test_every_kind_has_a_class() -> None:
    classes = {cls.kind: cls for cls in IngestionError.__subclasses__()}
    assert sorted(classes) == sorted(_native.ERROR_KINDS)
    for cls in classes.values():
        assert getattr(dodo_ingestion, cls.__name__) is cls


@pytest.mark.parametrize("kind", _native.ERROR_KINDS)
def test_an_error_keeps_its_details(kind: str) -> None:
    error = _native.make_error(kind, "words", "metadata.x", 413, True)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    made = type(error)("words", field="metadata.x", status=413, may_be_billed=True)
    assert (error.args, vars(error)) == (made.args, vars(made))
    for each in (error, copy):
        assert (each.kind, each.field, each.status) == (kind, "metadata.x", 413)
        assert each.may_be_billed
        assert str(each) == each.message == "words"


@pytest.mark.parametrize("value", [1.0, None, []])
def test_an_unknown_option_is_refused_by_the_core(value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigurationError, match='did you mean "linger"') as raised:
        Ingestion(api_key="k", event_name="api_call", lingr=value)
    assert raised.value.kind == "configuration"
    assert raised.value.field == "lingr"


def test_an_option_whose_name_is_no_text() -> None:
    with pytest.raises(ConfigurationError, match="unknown option"):
        Ingestion(**{"api_key": "k", "event_name": "api_call", "\ud800": 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"event_name": "api_call", "environment": "staging"}, "environment"),
        ({"event_name": "api_call", "linger": 5000}, "linger"),
        ({"event_name": "api_call", "linger": timedelta(hours=1)}, "linger"),
        ({"event_name": "api_call", "linger": timedelta(seconds=-1)}, "linger"),
        ({"event_name": "api_call", "linger": 10**400}, "linger"),
        ({"event_name": "api_call", "max_spool_bytes": 10**400}, "max_spool_bytes"),
        ({"event_name": "api_call", "account": "\ud800"}, "account"),
        ({"event_name": "api_call", "spool_dir": []}, "spool_dir"),
        ({"event_name": "api_call", "spool_dir": Path("\ud800")}, "spool_dir"),
        ({}, "event_name"),
    ],
)
def test_an_option_out_of_range(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Ingestion(api_key="k", **options)
    assert raised.value.field == field


def test_options_take_paths_and_none(connect: Connect, tmp_path: Path) -> None:
    ingestion = connect(spool_dir=tmp_path, linger=timedelta(seconds=1), account=None)
    assert "dodo_test_python" not in repr(ingestion)


def test_an_interval_in_milliseconds_is_named(connect: Connect) -> None:
    with pytest.raises(IngestionError, match=re.escape("5.0")) as raised:
        create_batch(connect(), flush_interval=5000)
    assert raised.value.field == "flush_interval"


@pytest.mark.parametrize("interval", [-1, float("nan"), "5", True, timedelta(seconds=-1)])
def test_an_interval_that_is_none(connect: Connect, interval: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigurationError) as raised:
        create_batch(connect(), flush_interval=interval)
    assert raised.value.field == "flush_interval"


@pytest.mark.parametrize("size", [0, 1001, -1, 2.5, 10**30, True])
def test_a_batch_size_out_of_range(connect: Connect, size: Any) -> None:  # noqa: ANN401
    with pytest.raises(IngestionError) as raised:
        create_batch(connect(), max_size=size)
    assert raised.value.field == "max_size"


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        10**18 * 10,
        -(2**63) - 1,
        10**60,
        b"bytes",
        [],
        {},
        Decimal("0.1234567890123456789"),
        Decimal("NaN"),
        Decimal("1E+400"),
        timedelta(seconds=1),
        complex(1),
        object(),
        "\ud800",
    ],
)
def test_a_value_that_is_none(connect: Connect, value: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValidationError) as raised:
        track_api_call(connect(), customer_id="cus_1", metadata={"key": value})
    assert raised.value.kind == "validation"
    assert raised.value.field == "metadata.key"


@pytest.mark.parametrize(
    ("verb", "name", "hint"),
    [
        ("track_api_call", "metdata", "; did you mean 'metadata'?"),
        ("track_api_call", "eventId", "; did you mean 'event_id'?"),
        ("add", "quux", "; it takes customer_id, metadata, event_id, event_name, timestamp"),
        ("create_batch", "maxsize", "; did you mean 'max_size'?"),
        ("track_object_storage", "byts", "; did you mean 'bytes'?"),
        ("track_stream_bytes", "metdata", "; did you mean 'metadata'?"),
        ("track_time_range", "duration", "; did you mean 'duration_ms'?"),
    ],
)
def test_an_unknown_keyword_is_refused(connect: Connect, verb: str, name: str, hint: str) -> None:
    ingestion = connect()
    who: dict[str, Any] = {"customer_id": "cus_1"}
    calls: dict[str, Callable[..., object]] = {
        "track_api_call": lambda **given: track_api_call(ingestion, **who, **given),
        "add": lambda **given: create_batch(ingestion).add(**who, **given),
        "create_batch": lambda **given: create_batch(ingestion, **given),
        "track_object_storage": lambda **given: track_object_storage(ingestion, **who, **given),
        "track_stream_bytes": lambda **given: track_stream_bytes(ingestion, **who, **given),
        "track_time_range": lambda **given: track_time_range(ingestion, **who, **given),
    }
    words = f"{verb}() got an unexpected keyword argument '{name}'{hint}"
    with pytest.raises(TypeError, match=re.escape(words)):
        calls[verb](**{name: 1})


async def page(_kind: str, _message: str) -> None: ...


@pytest.mark.parametrize("not_a_listener", ["print", page])
def test_a_listener_that_cannot_be_called(not_a_listener: Any) -> None:  # noqa: ANN401
    with pytest.raises(ConfigurationError) as raised:
        Ingestion(api_key="k", event_name="api_call", on_alarm=not_a_listener)
    assert raised.value.field == "on_alarm"


@pytest.mark.parametrize("value", ["\ud800", 7, b"cus_1"])
@pytest.mark.parametrize("field", ["customer_id", "event_id", "event_name"])
def test_a_value_that_is_no_text(connect: Connect, field: str, value: Any) -> None:  # noqa: ANN401
    call = {"customer_id": "cus_1", field: value}
    for accept in (connect().track, create_batch(connect()).add):
        with pytest.raises(ValidationError) as raised:
            accept(**call)
        assert raised.value.field == field
        assert str(raised.value).startswith(f"{field}: ")


def test_a_customer_of_none(connect: Connect) -> None:
    nobody: Any = None
    with pytest.raises(ValidationError) as raised:
        track_api_call(connect(), customer_id=nobody)
    assert raised.value.field == "customer_id"


def test_a_key_that_is_none(connect: Connect) -> None:
    metadata: Any = {1: "x"}
    with pytest.raises(ValidationError) as raised:
        track_api_call(connect(), customer_id="cus_1", metadata=metadata)
    assert raised.value.field == "metadata"


@pytest.mark.parametrize(
    "timestamp",
    [
        datetime(2026, 1, 1),  # noqa: DTZ001, RUF100
        datetime.min,  # noqa: DTZ901, RUF100
        datetime(1969, 12, 31, 23, tzinfo=timezone.utc),
        "2026-01-01T00:00:00Z",
        1.0,
    ],
)
def test_a_timestamp_that_is_none(connect: Connect, timestamp: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValidationError) as raised:
        track_api_call(connect(), customer_id="cus_1", timestamp=timestamp)
    assert raised.value.field == "timestamp"


def test_a_batch_refuses_what_a_call_refuses(connect: Connect) -> None:
    with pytest.raises(ValidationError) as raised:
        create_batch(connect()).add(customer_id="")
    assert raised.value.field == "customer_id"
