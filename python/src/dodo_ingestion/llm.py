"""Bill the tokens that a language model took, as its provider counted them.

>>> tracker = create_llm_tracker(ingestion, event_name="llm.chat_completion")
>>> client = tracker.wrap(OpenAI(), customer_id="cus_1")
>>> client.chat.completions.create(model="gpt-4o", messages=[…])  # answered as ever, and billed

Whose answer it is, is told by its shape: OpenAI's (chat, responses, embeddings, and the many that
speak like it), Anthropic's, Gemini's, Bedrock's, Cohere's, Ollama's and LangChain's, as objects of
their libraries or as dicts.

The metadata pairs, named as in the JavaScript package:

    inputTokens               what the model read: of OpenAI and Gemini with what was cached, of
                              Anthropic without, as each provider counts
    outputTokens              what it wrote, thinking included
    totalTokens               the provider's total, else the sum of the two
    model                     as in the answer, else as in the request
    provider                  as LangChain's answer tells; else the package of a wrapped client;
                              else by the shape, if that is OpenAI's, Anthropic's or Gemini's
    cachedInputTokens         read from the provider's cache, if any were
    cacheCreationInputTokens  written to it, if any were
    reasoningTokens           those of `outputTokens` that were thinking, if the provider tells
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar, cast

from dodo_ingestion import _fitting
from dodo_ingestion._llm_wrap import is_wrapped, packages, wrapped
from dodo_ingestion._native import Ingestion, Receipt, track_api_call
from dodo_ingestion._notice import warn
from dodo_ingestion._siblings import beside, refused
from dodo_ingestion.errors import ValidationError
from dodo_ingestion.types import Metadata, MetadataValue

__all__ = ["LLMTracker", "Usage", "create_llm_tracker"]

_Client = TypeVar("_Client")

_LONGEST_MODEL = 500

# The names of OpenAI's, Anthropic's and Gemini's libraries. Gemini's JSON and Bedrock have
# the like in camel case.
_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_write_input_tokens",
    "prompt_token_count",
    "candidates_token_count",
    "thoughts_token_count",
    "tool_use_prompt_token_count",
    "cached_content_token_count",
    "total_token_count",
    "prompt_eval_count",
    "eval_count",
)
# The names of Gemini's interactions, and those that its other answers have for the same.
_INTERACTIONS = {
    "total_input_tokens": "prompt_token_count",
    "total_output_tokens": "candidates_token_count",
    "total_thought_tokens": "thoughts_token_count",
    "total_tool_use_tokens": "tool_use_prompt_token_count",
    "total_cached_tokens": "cached_content_token_count",
}
# As OpenAI spells them, and those that speak like it.
_OPENAI = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
_READ = ("prompt_tokens", "input_tokens", "prompt_eval_count")
_WRITTEN = ("completion_tokens", "output_tokens", "eval_count")
# A count within another object of the usage, and the count that it is.
_DETAILS = (
    ("prompt_tokens_details", "cached_tokens", "cached_tokens"),
    ("input_tokens_details", "cached_tokens", "cached_tokens"),
    ("prompt_tokens_details", "cache_write_tokens", "cache_write_input_tokens"),
    ("input_tokens_details", "cache_write_tokens", "cache_write_input_tokens"),
    ("completion_tokens_details", "reasoning_tokens", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens", "reasoning_tokens"),
    ("output_tokens_details", "thinking_tokens", "reasoning_tokens"),
    ("input_token_details", "cache_read", "cached_tokens"),
    ("input_token_details", "cache_creation", "cache_write_input_tokens"),
    ("output_token_details", "reasoning", "reasoning_tokens"),
)
# Those of Anthropic's compaction, which are beside those of its answer.
_COMPACTION = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)

# The events after which a stream tells nothing more.
_LAST = (
    "interaction.completed",
    "message_stop",
    "response.completed",
    "response.failed",
    "response.incomplete",
)


@dataclass(frozen=True)
class Usage:
    """The tokens of one answer."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    model: str | None = None
    provider: str | None = None
    cached_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_tokens: int = 0

    @classmethod
    def of(cls, response: object) -> "Usage | None":
        """Read the usage of a provider's answer; `None` if it tells of none."""
        reading = Reading()
        reading.add(response)
        return reading.usage()

    def metadata(self) -> dict[str, MetadataValue]:
        """Give the metadata pairs. What is not known is left out."""
        return {
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "totalTokens": self.total_tokens,
            "model": self.model and self.model[:_LONGEST_MODEL],
            "provider": self.provider,
            "cachedInputTokens": self.cached_input_tokens or None,
            "cacheCreationInputTokens": self.cache_creation_input_tokens or None,
            "reasoningTokens": self.reasoning_tokens or None,
        }


class Reading:
    """What has been seen of an answer that comes at once or in pieces."""

    def __init__(self, model: object = None, provider: str | None = None) -> None:
        self._counts: dict[str, int] = {}
        self._earlier: Counter[str] = Counter()
        self._compacted: Counter[str] = Counter()
        self._response_id: str | None = None
        self._model = model if isinstance(model, str) else None
        self._provider = provider
        self._anthropic = False
        self._openai = False
        self.complete = False
        self.answered = False
        self.goes_on = False

    def add(self, piece: object) -> None:
        """Take what a response or an event of a stream tells.

        A later count replaces an earlier; LangChain's are summed, and so are those of Gemini's
        responses, of which a stream has more than one if it calls functions by itself.
        """
        # An event of a stream has its response within.
        for name in ("message", "response", "chunk", "data", "interaction", "x_groq"):
            within = _get(piece, name)
            if within is not None and not isinstance(within, str):
                self._add(within)
        # Bedrock's last one has it in what else may be a user's.
        self._count(_get(_get(piece, "metadata"), "usage"))
        self._add(piece)
        self.complete |= (_get(piece, "type") or _get(piece, "event_type")) in _LAST
        # A run of OpenAI's that waits for outputs tells of all its steps again when it has them.
        if _get(piece, "event") == "thread.run.requires_action":
            self._counts.clear()
            self.goes_on = True
        self.answered |= _is_answer(piece)

    def _add(self, response: object) -> None:
        for name in ("model", "model_version", "modelVersion"):
            model = _get(response, name)
            if isinstance(model, str) and model:
                self._model = model
        self._tell(_get(response, "response_metadata"))
        for name in ("response_id", "responseId"):
            response_id = _get(response, name)
            if isinstance(response_id, str):
                self._begin(response_id)
        for name in ("usage", "usage_metadata", "usageMetadata", "meta"):
            usage = _get(response, name)
            if usage is not None:
                break
        else:
            usage = response  # somebody hands over the usage alone
        # LangChain's is spelt like OpenAI's, whatever the model.
        if name != "usage_metadata":
            self._openai |= any(_get(usage, each) is not None for each in _OPENAI)
        self._anthropic |= _get(response, "type") in ("message", "message_start", "message_delta")
        self._count(usage, summed=_is_increment(response, usage))

    def _tell(self, metadata: object) -> None:
        """Take what LangChain tells beside its usage."""
        model, provider = (_get(metadata, f"model_{name}") for name in ("name", "provider"))
        if isinstance(model, str) and model:
            self._model = model
        if isinstance(provider, str) and provider:
            self._provider = provider

    def _count(self, usage: object, *, summed: bool = False) -> None:
        if usage is None:
            return
        self._count_in(usage, summed)
        # Cohere's has the counts that it bills within.
        self._count_in(_either(usage, "billed_units") or _get(usage, "tokens"), summed)
        for details, name, known in _DETAILS:
            # What was cached some models repeat with every piece, though it was read once.
            sums = summed and known == "reasoning_tokens"
            self._set(known, _either(_either(usage, details), name), sums)
        iterations = _get(usage, "iterations")
        if isinstance(iterations, list):
            self._compacted = _compacted(iterations)

    def _count_in(self, holder: object, summed: bool) -> None:
        if holder is not None:
            for name in (*_COUNTS, *_INTERACTIONS):
                self._set(_INTERACTIONS.get(name, name), _either(holder, name), summed)

    def _set(self, name: str, value: object, summed: bool) -> None:
        count = _whole(value)
        if count is not None:
            self._counts[name] = count + (self._counts.get(name, 0) if summed else 0)

    def _begin(self, response_id: str) -> None:
        if self._response_id not in (None, response_id):
            self._earlier.update(self._counts)
            self._counts.clear()
        self._response_id = response_id

    def usage(self) -> Usage | None:
        """Give what has been told so far; `None` if nothing was."""
        counts = self._earlier.copy()
        counts.update(self._counts)
        counts.update(self._compacted)
        provider: str | None
        if "prompt_token_count" in counts or "total_token_count" in counts:
            provider = "google"
            read = counts.get("prompt_token_count", 0)
            read += counts.get("tool_use_prompt_token_count", 0)
            thought = counts.get("thoughts_token_count", 0)
            written = counts.get("candidates_token_count", 0) + thought
            total = counts.get("total_token_count", counts.get("total_tokens"))
            cached = counts.get("cached_content_token_count", 0)
        elif any(name in counts for name in (*_READ, *_WRITTEN)):
            anthropic = self._anthropic or "cache_creation_input_tokens" in counts
            speaker = "openai" if self._openai else None
            provider = "anthropic" if anthropic else speaker
            read = _first(counts, _READ)
            written = _first(counts, _WRITTEN)
            thought = counts.get("reasoning_tokens", 0)
            total = counts.get("total_tokens")
            cached = counts.get("cached_tokens", counts.get("cache_read_input_tokens", 0))
        else:
            return None
        return Usage(
            input_tokens=read,
            output_tokens=written,
            total_tokens=read + written if total is None else total,
            model=self._model,
            provider=self._provider or provider,
            cached_input_tokens=cached,
            cache_creation_input_tokens=counts.get(
                "cache_creation_input_tokens", counts.get("cache_write_input_tokens", 0)
            ),
            reasoning_tokens=thought,
        )


def _get(holder: object, name: str) -> object:
    if isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)


def _is_increment(piece: object, usage: object) -> bool:
    """Whether it is a message of LangChain's, whose usage `+` adds to that of those before."""
    return (
        isinstance(usage, Mapping)
        and usage is _get(piece, "usage_metadata")
        and hasattr(type(piece), "__add__")
    )


def _is_answer(response: object) -> bool:
    """Whether it is a completion, a response, embeddings or a message of Anthropic's."""
    if (_get(response, "type"), _get(response, "role")) == ("message", "assistant"):
        return True
    lists = [_get(response, name) for name in ("choices", "output", "data")]
    choices, output, data = (each if isinstance(each, list) else [] for each in lists)
    return bool(choices or output) or any(_get(each, "embedding") is not None for each in data[:1])


def _compacted(iterations: list[object]) -> Counter[str]:
    """Sum what Anthropic's compaction took, which the counts beside it leave out."""
    counts: Counter[str] = Counter()
    for each in iterations:
        if _get(each, "type") == "compaction":
            counts.update({name: _whole(_get(each, name)) or 0 for name in _COMPACTION})
    return counts


def _either(holder: object, name: str) -> object:
    """Get what is spelt in snake case or in camel case."""
    found = _get(holder, name)
    return _get(holder, _camel(name)) if found is None else found


def _whole(value: object) -> int | None:
    """Read a count. Cohere's are floats."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


def _first(counts: Mapping[str, int], names: tuple[str, ...]) -> int:
    return next((counts[name] for name in names if name in counts), 0)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.title, others))


class LLMTracker:
    """Bills the usage of language models. Make one with `create_llm_tracker`, for all customers."""

    def __init__(self, ingestion: Ingestion, event_name: str | None = None) -> None:
        self._ingestion = ingestion
        self._event_name = event_name

    def track(
        self,
        response: object,
        *,
        customer_id: str,
        metadata: Metadata | None = None,
        event_id: str | None = None,
        timestamp: datetime | None = None,
    ) -> Receipt:
        """Bill one answer of a provider.

        Args:
            response: The answer, as an object of the provider's library or as a dict; or its usage
                alone; or a `Usage`.
            customer_id: The customer who is billed.
            metadata: Further pairs. One of the names above goes before what the answer says.
            event_id: As for `track_api_call`, which also has the limits and the other exceptions.
            timestamp: Likewise.

        Raises:
            ValidationError: The answer tells no usage (`field` is `response`), or breaks a limit.

        """
        usage = response if isinstance(response, Usage) else Usage.of(response)
        if usage is None:
            why = f"a {type(response).__name__} without token usage"
            raise refused(self._ingestion, "response", why)
        return track_api_call(
            self._ingestion,
            customer_id=customer_id,
            metadata=beside(self._ingestion, usage.metadata(), metadata),
            event_id=event_id,
            event_name=self._event_name,
            timestamp=timestamp,
        )

    def wrap(
        self, client: _Client, *, customer_id: str, metadata: Metadata | None = None
    ) -> _Client:
        """Give a client that is used as `client` is, and bills what it answers.

        `client` itself stays as it is. Billed is what the methods `create`, `parse`, `stream`,
        `generate`, `generate_content`, `generate_content_stream`, `embed_content`, `send_message`,
        `send_message_stream`, `create_and_poll`, `create_and_stream`, `create_and_run`,
        `create_and_run_poll`, `create_and_run_stream`, `submit_tool_outputs`,
        `submit_tool_outputs_and_poll`, `submit_tool_outputs_stream`, `edit` and `compact` return,
        Ollama's `chat`, and LangChain's models by `invoke`, `batch` and their async kin, also in a
        chain, at any depth, awaited or not. A stream is handed on piece by piece, and billed at its
        end, where it is left or when the program ends, by what the provider has told until then.
        OpenAI's chat tells it only with `stream_options={"include_usage": True}`, in its last
        piece; a stream without usage is logged and not billed, and so is an answer of which it is
        expected, such as those of Gemini's `embed_content`, which tells none. Close a stream that
        you leave before you close the `Ingestion`. Not billed is what goes by `with_raw_response`,
        `with_streaming_response` and Anthropic's `tool_runner`, LangChain's `astream_events`,
        `generate` and `with_structured_output`, and what `responses.retrieve`, `interactions.get`,
        and `retrieve` and `poll` of OpenAI's runs tell of what was still at work: `track` takes it.
        Nor is an answer that `parse` itself refuses, but for those of OpenAI's chat that were cut:
        their error has them. Nor are sessions over a WebSocket, nor what is under `sessions`, whose
        events tell the usage of the whole session again and again, nor the tokens of another model
        that Anthropic's advisor tool asks. Where Gemini's library calls functions by itself, an
        answer that is no stream tells the usage of the last round alone.

        Nothing that goes wrong with the bill reaches the caller: it is a warning of the logger
        `dodo_ingestion`.

        Args:
            client: An `OpenAI`, `Anthropic`, `genai.Client`, their async kin, one of their form, or
                a chat model of LangChain's.
            customer_id: The customer who is billed.
            metadata: Further pairs of every call. One that breaks a limit is left out, and logged.

        Raises:
            ValidationError: `client` is none: a module, a class or a method; or is wrapped already;
                or the customer or the metadata break a limit that no call could keep.

        """
        if is_wrapped(client):
            why = "client: is wrapped already; wrap the client itself"
            raise ValidationError(why, field="client")
        roots = packages(client)
        if not roots:
            why = f"client: a {type(client).__name__}, whose answers cannot be seen"
            raise ValidationError(f"{why}; wrap a client, as in wrap(OpenAI(), …)", field="client")
        _fitting.check(customer_id, metadata, dict.fromkeys(Usage(0, 0, 0).metadata(), 0))
        provider = roots[-1]

        def bill(reading: Reading) -> bool:
            usage = reading.usage()
            if usage is None:
                return reading.goes_on
            further = dict(metadata or {})
            while True:
                try:
                    self.track(usage, customer_id=customer_id, metadata=further)
                except ValidationError as error:
                    # What only the metadata has wrong costs the metadata.
                    _, _, key = (error.field or "").partition("metadata.")
                    if not key or further.get(key, 0) is None:
                        raise
                    further[key] = None
                    warn("metadata was changed: left out, %s", error)
                else:
                    return True

        def read(model: object) -> Reading:
            return Reading(model, provider)

        return cast("_Client", wrapped(client, read, bill))


def create_llm_tracker(ingestion: Ingestion, *, event_name: str | None = None) -> LLMTracker:
    """Make a tracker of language models' usage.

    Args:
        ingestion: The client.
        event_name: The event name of the meter for tokens; the client's own if not given.

    """
    return LLMTracker(ingestion, event_name)
