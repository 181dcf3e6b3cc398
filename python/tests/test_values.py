"""What metadata values and amounts become at the meter."""

import enum
from collections import ChainMap
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from conftest import Connect, Meter
from dodo_ingestion import (
    Receipt,
    ValidationError,
    create_batch,
    track_api_call,
    track_object_storage,
    track_stream_bytes,
    track_time_range,
)


class Plan(enum.Enum):
    PRO = "pro"
    LIMIT = 5
    COST = Decimal("0.1")
    NOTHING = None


class Big(enum.Enum):
    NUMBER = 2**64
    LIST = [1]  # noqa: RUF012


class Region(str, enum.Enum):
    EU = "eu"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Whole(int):
    pass


class Number(float):
    pass


VALUES: dict[str, tuple[Any, Any]] = {
    "decimal": (Decimal("12.34"), 12.34),
    "decimal_whole": (Decimal(5), 5.0),
    "decimal_zeros": (Decimal("1.10"), 1.1),
    "decimal_exponent": (Decimal("1E+3"), 1000.0),
    "decimal_wide": (Decimal(9007199254740993), 9007199254740993),
    "decimal_largest": (Decimal(2**63 - 1), 2**63 - 1),
    "decimal_beyond": (Decimal("1E+20"), 1e20),
    "uuid": (
        UUID("12345678-1234-5678-1234-567812345678"),
        "12345678-1234-5678-1234-567812345678",
    ),
    "datetime": (
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        "2026-01-02T03:04:05+02:00",
    ),
    "naive": (datetime(2026, 1, 2), "2026-01-02T00:00:00"),  # noqa: DTZ001, RUF100
    "date": (date(2026, 1, 2), "2026-01-02"),
    "enum_text": (Plan.PRO, "pro"),
    "enum_number": (Plan.LIMIT, 5),
    "enum_decimal": (Plan.COST, 0.1),
    "str_enum": (Region.EU, "eu"),
    "int_enum": (Level.HIGH, 3),
    "str_subclass": (Text("text"), "text"),
    "int_subclass": (Whole(7), 7),
    "float_subclass": (Number(0.5), 0.5),
    "np_int": (np.int64(-9), -9),
    "np_uint8": (np.uint8(255), 255),
    "np_double": (np.float64(0.25), 0.25),
    "np_single": (np.float32(0.5), 0.5),
    "np_single_digits": (np.float32(0.1), 0.1),
    "np_single_whole": (np.float32(123456792), 123456792.0),
    "np_half": (np.float16(0.1), 0.1),
    "np_half_whole": (np.float16(65504), 65504.0),
    "np_bool": (np.bool_(True), True),
    "np_str": (np.str_("text"), "text"),
    "np_time": (np.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
    "np_nanoseconds": (
        np.datetime64("2026-01-02T03:04:05.000000006"),
        "2026-01-02T03:04:05.000000006",
    ),
    "bool": (True, True),
    "largest": (2**63 - 1, 2**63 - 1),
    "smallest": (-(2**63), -(2**63)),
}


class NoTime(datetime):
    """As pandas' NaT is: a datetime that equals nothing."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = datetime.__hash__

    def isoformat(self, *_arguments: Any, **_named: Any) -> str:  # noqa: ANN401
        return "NaT"


NOTHING = {
    "none": None,
    "enum_none": Plan.NOTHING,
    "np_nat": np.datetime64("NaT"),
    "pd_nat": NoTime(1, 1, 1),  # noqa: DTZ001, RUF100
}

REFUSED: dict[str, Any] = {
    "above_64_bits": 2**63,
    "enum_above_64_bits": Big.NUMBER,
    "np_uint64": np.uint64(2**64 - 1),
    "np_nan": np.float64("nan"),
    "np_single_nan": np.float32("nan"),
    "decimal_above_64_bits": Decimal(2**64 + 1),
    "np_timedelta": np.timedelta64(1, "s"),
    "np_complex": np.complex128(1j),
    "np_longdouble": np.longdouble(1),
    "np_bytes": np.bytes_(b"x"),
    "np_array": np.array([1]),
    "decimal_digits": Decimal("0.1234567890123456789"),
    "decimal_nan": Decimal("sNaN"),
    "nested": {"a": 1},
    "list": [1],
    "bytes": b"x",
    "timedelta": timedelta(seconds=1),
    "set": {1},
    "class": Plan,
    "enum_list": Big.LIST,
}


def test_values_are_billed_as_what_they_stand_for(connect: Connect, meter: Meter) -> None:
    ingestion = connect()
    given = {key: value for key, (value, _) in VALUES.items()}
    receipt = track_api_call(ingestion, customer_id="cus_values", metadata={**given, **NOTHING})
    with create_batch(ingestion) as batch:
        batch.add(customer_id="cus_values", metadata=given, event_id="values-batch")
    for event_id in (receipt.event_id, "values-batch"):
        billed = meter.event(event_id)["metadata"]
        assert billed == {key: expected for key, (_, expected) in VALUES.items()}
        # 1 == 1.0 == True in Python: the types are part of the value.
        for key, (_, expected) in VALUES.items():
            assert type(billed[key]) is type(expected), key


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_a_value_that_would_lose_something_is_refused(connect: Connect, value: Any) -> None:  # noqa: ANN401
    ingestion = connect()
    for accept in (ingestion.track, create_batch(ingestion).add):
        with pytest.raises(ValidationError) as raised:
            accept(customer_id="cus_1", metadata={"fine": 1, "the key": value})
        assert raised.value.field == "metadata.the key"
        assert "the key" in str(raised.value)


@pytest.mark.parametrize("metadata", [MappingProxyType({"a": 1}), ChainMap({"a": 1}, {"a": 2})])
def test_metadata_is_any_mapping(connect: Connect, meter: Meter, metadata: Any) -> None:  # noqa: ANN401
    ingestion = connect(linger=0)
    receipt = track_api_call(ingestion, customer_id="cus_mapping", metadata=metadata)
    receipt.wait_delivered(timeout=60)
    assert meter.event(receipt.event_id)["metadata"] == {"a": 1}


@pytest.mark.parametrize("change", ["add", "remove", "clear"])
def test_metadata_that_changes_while_it_is_read(
    connect: Connect, meter: Meter, capfd: pytest.CaptureFixture[str], change: str
) -> None:
    metadata: dict[str, Any] = {"first": 1}

    class Odd(date):
        def isoformat(self) -> str:
            if change == "add":
                metadata.update({f"new_{number}": 1 for number in range(100)})
            elif change == "remove":
                del metadata["last"]
            else:
                metadata.clear()
            return "odd"

    metadata |= {"odd": Odd(2026, 1, 1), "last": 2}
    ingestion = connect(linger=0)
    receipt = track_api_call(ingestion, customer_id="cus_changing", metadata=metadata)
    receipt.wait_delivered(timeout=60)
    assert meter.event(receipt.event_id)["metadata"] == {"first": 1, "odd": "odd", "last": 2}
    assert capfd.readouterr() == ("", "")


def test_times_whose_arithmetic_is_their_own(connect: Connect, meter: Meter) -> None:
    class Difference(timedelta):
        days = 0
        seconds = microseconds = -1  # as a negative one may be, of a library of calendars

        def total_seconds(self) -> float:
            return 60.0

    class Time(datetime):
        def __sub__(self, _other: object) -> Any:  # noqa: ANN401
            return Difference()

    now = Time.now(timezone.utc)
    ingestion = connect(linger=Difference())
    receipt = track_api_call(ingestion, customer_id="cus_time", timestamp=now)
    ingestion.flush(timeout=60)
    billed = meter.event(receipt.event_id)["timestamp"]
    assert datetime.fromisoformat(billed.replace("Z", "+00:00")).second == now.second


def test_what_a_value_raises_reaches_the_caller(connect: Connect) -> None:
    class Odd(date):
        def isoformat(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        track_api_call(connect(), customer_id="cus_1", metadata={"key": Odd(2026, 1, 1)})


def test_amounts_are_billed_by_the_names_of_their_meters(connect: Connect, meter: Meter) -> None:
    ingestion = connect()
    who: dict[str, Any] = {"customer_id": "cus_amounts"}
    expected: list[tuple[Receipt, dict[str, Any]]] = [
        (track_object_storage(ingestion, **who, bytes=1 << 40), {"bytes": 1 << 40}),
        (
            track_object_storage(ingestion, **who, bytes=np.int64(5), metadata={"bucket": "b"}),
            {"bytes": 5, "bucket": "b"},
        ),
        (track_object_storage(ingestion, **who, bytes=1, metadata={"bytes": 2}), {"bytes": 2}),
        (
            track_stream_bytes(ingestion, **who, bytes=0, metadata=MappingProxyType({"a": "b"})),
            {"bytes": 0, "a": "b"},
        ),
        (track_time_range(ingestion, **who, duration_ms=1500), {"durationMs": 1500.0}),
        (
            track_time_range(
                ingestion, **who, duration_seconds=1.5, duration_minutes=Decimal("0.5")
            ),
            {"durationSeconds": 1.5, "durationMinutes": 0.5},
        ),
    ]
    bare = track_time_range(ingestion, **who, event_id="bare", event_name="time_range")
    ingestion.flush(timeout=60)
    for receipt, metadata in expected:
        assert meter.event(receipt.event_id)["metadata"] == metadata
    assert bare.event_id == "bare"
    assert meter.event("bare")["event_name"] == "time_range"


@pytest.mark.parametrize("amount", [-1, True, "5", float("nan"), float("inf"), [], 10**400])
@pytest.mark.parametrize(
    ("verb", "argument"),
    [
        (track_object_storage, "bytes"),
        (track_stream_bytes, "bytes"),
        (track_time_range, "duration_ms"),
        (track_time_range, "duration_seconds"),
        (track_time_range, "duration_minutes"),
    ],
)
def test_an_amount_that_is_none(
    connect: Connect,
    verb: Callable[..., Receipt],
    argument: str,
    amount: Any,  # noqa: ANN401
) -> None:
    with pytest.raises(ValidationError) as raised:
        verb(connect(), customer_id="cus_1", **{argument: amount})
    assert raised.value.field in (argument, f"metadata.{argument}")


def test_half_a_byte_is_refused(connect: Connect) -> None:
    half: Any = 0.5
    with pytest.raises(ValidationError):
        track_object_storage(connect(), customer_id="cus_1", bytes=half)


@pytest.mark.parametrize("verb", [track_object_storage, track_stream_bytes, track_time_range])
@pytest.mark.parametrize("given", [5, [], [("a", 1)], ""])
def test_metadata_that_is_no_mapping_is_refused_by_each_verb(
    verb: Callable[..., Receipt],
    given: Any,  # noqa: ANN401
    connect: Connect,
) -> None:
    ingestion = connect()
    with pytest.raises(ValidationError, match="is not a mapping") as raised:
        verb(ingestion, customer_id="cus_1", metadata=given)
    assert raised.value.field == "metadata"
    assert ingestion.stats()["invalid"] == 1
