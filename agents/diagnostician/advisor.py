"""The client of an advisor: a language model behind any OpenAI-compatible endpoint that the owner's settings name.

It sends a prompt and reads an answer, within one deadline, with one request to mend an answer of another form. What an
endpoint does wrong ends in an error of one word; nothing that it writes is passed on but the answer's own values. The
library is loaded when somebody asks. What a question costs is counted in the home, for the day.
"""

import asyncio
import fcntl
import hashlib
import importlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, Field, ValidationError

from contracts.diagnostician import AnswerRung
from contracts.errors import InvalidInput
from runtime.diagnosis.questions import Answer, Prompt, read_answer
from runtime.home.settings import Settings

DEADLINE_SECONDS = 20.0
"""For everything that one question takes."""
MOST_CALLS = 3
"""Requests for one question: in the form that is demanded, without, and to mend what came."""
MOST_ANSWER_TOKENS = 1000
MOST_BYTES = 1 << 18
OPENAI = "https://api.openai.com/v1"


class _CompletionMessage(BaseModel):
    content: str


class _CompletionChoice(BaseModel):
    message: _CompletionMessage


class _CompletionUsage(BaseModel):
    prompt_tokens: int = Field(0, ge=0, le=1_000_000_000)
    completion_tokens: int = Field(0, ge=0, le=1_000_000_000)


class _Completion(BaseModel):
    """What is read of the body of a response."""

    choices: list[_CompletionChoice] = Field(min_length=1)
    usage: _CompletionUsage | None = None


class _EndpointError(Exception):
    """What an endpoint did wrong, in one word."""


@dataclass(frozen=True, slots=True)
class Consultation:
    """What came of one question: the answer and the rung on which it was read, or an error; and what it took."""

    answer: Answer | None = None
    rung: AnswerRung = "none"
    error: str = ""
    reason: str = ""
    text: str = ""
    """The digest of the text that was read last."""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """All tokens that the endpoint told of."""
        return self.prompt_tokens + self.completion_tokens


class Advisor:
    """One endpoint and one model. The key is read for each question; it goes over TLS, or to this machine alone."""

    def __init__(self, settings: Settings, deadline: float = DEADLINE_SECONDS) -> None:
        self._settings, self._deadline = settings, deadline
        self.so_far = Consultation()
        """What the question that was asked last has taken, also when it is cancelled."""
        self._refusal = ""
        self._most_calls = MOST_CALLS

    async def ask(self, prompt: Prompt, *, demand: bool = True, most_calls: int = MOST_CALLS) -> Consultation:
        """Ask once, in so many calls at most, and return what came of it; never raises but when it is cancelled.

        `demand` says whether the endpoint is asked for the very form of the answer; one that does not know how to is
        asked without.
        """
        began, self.so_far, self._most_calls, error = time.monotonic(), Consultation(), most_calls, ""
        try:
            async with asyncio.timeout(self._deadline):
                # Loading takes a third of a second, which the other agents of this process should not wait for.
                openai = await asyncio.to_thread(importlib.import_module, "openai")
                async with self._client(openai) as client:
                    await self._consult(client, prompt, demand=demand)
        except TimeoutError:
            error = "timeout"
        except ImportError:
            error = "no_client"
        except InvalidInput:
            error = "key"
        except _EndpointError as wrong:
            error = str(wrong)
        except Exception:  # noqa: BLE001 - a compatible endpoint may be anything, and its faults are not the diagnostician's
            error = "unreachable"
        finally:
            self.so_far = replace(self.so_far, seconds=round(time.monotonic() - began, 3))
        return replace(self.so_far, error=error or self.so_far.error)

    def _client(self, openai: Any) -> Any:
        """A client that follows no redirection, reads no proxy and no address out of the environment, tries once."""
        url = self._settings.llm_url or OPENAI
        parts = urlsplit(url)
        secret = self._settings.llm_key
        if secret and parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
            raise _EndpointError("key_in_clear")
        client = openai.AsyncOpenAI(
            api_key=secret or "none",  # a server of one's own often wants no key, and the client insists on one
            base_url=url,
            organization="",
            project="",
            timeout=self._deadline,
            max_retries=0,
            # A server may close a connection after its answer without a word; a second request on it would be lost.
            default_headers={"accept-encoding": "identity", "connection": "close"},
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, trust_env=False, event_hooks={"response": [self._look]}
            ),
        )
        client.organization = client.project = None
        return client

    async def _look(self, response: Any) -> None:
        """Refuse a response by its head, before a byte of its body is read."""
        kind, length = response.headers.get("content-type", ""), response.headers.get("content-length", "0")
        if 300 <= response.status_code < 400:
            self._refusal = "redirect"
        elif response.status_code != 200:
            self._refusal = f"http_{response.status_code}"
        elif kind.partition(";")[0].strip().lower() != "application/json":
            self._refusal = "content_type"
        elif response.headers.get("content-encoding", "identity") != "identity":
            self._refusal = "content_encoding"
        elif not length.isdecimal() or len(length) > 12 or int(length) > MOST_BYTES:
            self._refusal = "too_large"
        if self._refusal:
            raise _EndpointError(self._refusal)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """Raise for what a hook has raised, which the client wraps."""
        try:
            yield
        except Exception:
            if self._refusal:
                raise _EndpointError(self._refusal) from None
            raise

    async def _consult(self, client: Any, prompt: Prompt, *, demand: bool) -> None:
        messages = [{"role": "system", "content": prompt.instruction}, {"role": "user", "content": prompt.facts}]
        try:
            text = await self._complete(client, messages, prompt if demand else None)
        except _EndpointError as refusal:
            if not demand or str(refusal) not in ("http_400", "http_422"):
                raise
            demand, text = False, await self._complete(client, messages, None)
        answer, rung, wrong = read_answer(text, prompt, demanded=demand)
        if answer is None:
            form = orjson.dumps(prompt.form).decode()
            mend = f"Your last answer could not be used: {wrong}. Answer with one JSON object of this schema: {form}"
            messages.append({"role": "user", "content": mend})
            text = await self._complete(client, messages, prompt if demand else None)
            answer, rung, wrong = read_answer(text, prompt, demanded=demand)
            rung = "none" if answer is None else "repaired"
        failure = "" if answer else "not_an_answer"
        self.so_far = replace(self.so_far, answer=answer, rung=rung, error=failure, reason=wrong)

    async def _complete(self, client: Any, messages: list[dict[str, str]], demanded: Prompt | None) -> str:
        """One request; the text of its answer."""
        asked: dict[str, object] = {"max_tokens": MOST_ANSWER_TOKENS, "temperature": 0}
        if demanded is not None:
            form = {"name": "advice", "strict": True, "schema": demanded.form}
            asked = {"response_format": {"type": "json_schema", "json_schema": form}}
            asked["max_completion_tokens"] = MOST_ANSWER_TOKENS
        if self.so_far.calls >= self._most_calls:
            raise _EndpointError("budget")
        self._refusal = ""
        self.so_far = replace(self.so_far, calls=self.so_far.calls + 1)
        body = bytearray()
        create = client.chat.completions.with_streaming_response.create
        with self._refused():
            async with create(model=self._settings.llm_model, messages=messages, **asked) as response:
                async for piece in response.iter_bytes():
                    body += piece
                    if len(body) > MOST_BYTES:
                        raise _EndpointError("too_large")
        try:
            completion = _Completion.model_validate_json(bytes(body))
        except ValidationError:
            raise _EndpointError("not_a_completion") from None
        text, used, usage = completion.choices[0].message.content, self.so_far, completion.usage or _CompletionUsage()
        self.so_far = replace(
            used,
            text=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
            prompt_tokens=used.prompt_tokens + usage.prompt_tokens,
            completion_tokens=used.completion_tokens + usage.completion_tokens,
        )
        return text


class AdvisorBudget:
    """What a home's questions have cost today (UTC), in a file; one that cannot be read or written permits nothing."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self._path, self._most = path, (settings.llm_calls_per_day, settings.llm_tokens_per_day)

    def take(self, calls: int, tokens: int) -> bool:
        """Take so much from what is left of today, if that much is left."""
        return self._book(calls, tokens, within=True)

    def give_back(self, calls: int, tokens: int) -> None:
        """Give back what was taken and not needed; a negative number is taken besides."""
        self._book(-calls, -tokens, within=False)

    def _book(self, calls: int, tokens: int, *, within: bool) -> bool:
        today = time.strftime("%Y-%m-%d", time.gmtime())
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                known = _spent(os.read(descriptor, 1024), today, self._most)
                spent = {"calls": max(0, known[0] + calls), "tokens": max(0, known[1] + tokens)}
                if within and (spent["calls"] > self._most[0] or spent["tokens"] > self._most[1]):
                    return False
                line = orjson.dumps({"day": today, **spent}).ljust(128)
                os.pwrite(descriptor, line, 0)
                os.ftruncate(descriptor, len(line))
                return True
            finally:
                os.close(descriptor)
        return False


def _spent(content: bytes, today: str, most: tuple[int, int]) -> tuple[int, int]:
    """Calls and tokens of today in a file's content; everything where it holds no such thing."""
    if not content:
        return 0, 0
    try:
        known: Mapping[str, object] = orjson.loads(content)
        calls, tokens = known["calls"], known["tokens"]
        if known["day"] != today:
            return 0, 0
        return (calls, tokens) if isinstance(calls, int) and isinstance(tokens, int) else most
    except (ValueError, KeyError, TypeError):
        return most
