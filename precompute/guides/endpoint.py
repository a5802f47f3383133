"""An OpenAI-compatible embeddings endpoint, called through the official client: texts in, vectors out."""

from __future__ import annotations

import os
import threading
import time
from urllib.parse import urlsplit

import numpy as np
from openai import APIConnectionError, APIError, APITimeoutError, DefaultHttpxClient, OpenAI, OpenAIError, omit

from ...shared.errors import ModelError, SettingsError
from ..settings import KEY_VARIABLE, ApiSettings
from .base import excerpt

NO_KEY = "none"  # servers of one's own need none, and the client insists on one
MESSAGE_CHARACTERS = 300
AGAIN = "then run the same command again: what was answered is kept, and not paid for again"

OTHER = ("The endpoint refuses the request", "see its message")
BAD_KEY = ("The endpoint refuses the key", "put a key that may use the model into the environment variable KEY")
TOO_MUCH = (
    "The endpoint cannot take these texts",
    "lower --api-batch; or leave --dim out, where the model cannot be cut; or shorten a text that is too long for the "
    "model in the pairs, give another --out, and this unfinished one as --reuse: its answers are taken from there",
)
REFUSALS: dict[int | None, tuple[str, str]] = {
    400: TOO_MUCH,
    401: BAD_KEY,
    403: BAD_KEY,
    404: ("The endpoint knows no such model or address", "check api:MODEL, and --api-base, which mostly ends in /v1"),
    413: TOO_MUCH,
    422: TOO_MUCH,
    429: (
        "The endpoint's limit is reached, or what was paid for is used up",
        "lower --api-concurrency or give --api-requests-per-minute",
    ),
}


class Endpoint:
    """The endpoint with its key, which comes from the environment and goes to the endpoint only.

    The client itself waits and tries again: as long as ``Retry-After`` says, else exponentially longer.

    Args:
        model: The endpoint's name of the model.
        dimensions: How many to request; None requests what the model has.
        settings: How to reach it.

    Raises:
        SettingsError: The key is missing or cannot be sent.
    """

    def __init__(self, model: str, dimensions: int | None, settings: ApiSettings) -> None:
        self._model, self._dimensions, self._settings = model, dimensions, settings
        variable = settings.api_key_env
        self._key = os.environ.get(variable, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise SettingsError("The key has characters that no key has", where=f"variable {variable}")
        pace = [Pace(settings.api_requests_per_minute)] if settings.api_requests_per_minute else []
        try:
            self._client = OpenAI(
                api_key=self._key or NO_KEY,
                base_url=settings.api_base,
                max_retries=settings.api_retries,
                timeout=settings.api_timeout,
                http_client=DefaultHttpxClient(event_hooks={"request": pace}),
            )
        except (OpenAIError, ValueError) as error:
            raise SettingsError(f"The endpoint cannot be used: {self._message(error)}", where="--api-base") from None
        self.url = str(self._client.base_url)
        hosted = (urlsplit(self.url).hostname or "").endswith("openai.com")
        if not self._key and (hosted or variable != KEY_VARIABLE):
            fix = "export it, name another variable with --api-key-env, or give the --api-base of your own server"
            raise SettingsError("There is no key", where=f"environment variable {variable}", fix=fix)

    def embed(self, texts: list[str], dim: int | None) -> np.ndarray:
        """Embed texts in one request.

        Args:
            texts: T texts, none empty.
            dim: Dimensions that a vector must have; None for any.

        Returns:
            (T, D) float32, rows in their order.

        Raises:
            ModelError: The endpoint refuses, cannot be reached, or answers something else.
        """
        try:
            answer = self._client.embeddings.create(
                model=self._model, input=texts, dimensions=omit if self._dimensions is None else self._dimensions
            )
            rows = {row.index: row.embedding for row in answer.data}
            vectors = np.array([rows[number] for number in range(len(texts))], dtype=np.float32)
            width = vectors.shape[1]
        except APIError as error:  # without its cause: a traceback would show headers and texts
            raise self._refusal(error, texts) from None
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            what, fix = f"This is no answer to {len(texts)} texts: {self._message(error)}", "check --api-base"
            raise self._error(what, texts, f"{fix}, which mostly ends in /v1") from None
        if dim not in (None, width):
            fix = "leave --dim out where the model cannot be cut; give another --out where the model is another one now"
            raise self._error(f"Vectors of {width} dimensions came, {dim} were expected", texts, fix)
        return vectors

    def _refusal(self, error: APIError, texts: list[str]) -> ModelError:
        what, fix = REFUSALS.get(getattr(error, "status_code", None), OTHER)
        if isinstance(error, APITimeoutError):
            what, fix = f"No answer came in {self._settings.api_timeout:g} s", "raise --api-timeout"
        elif isinstance(error, APIConnectionError):
            what, fix = "The endpoint cannot be reached", "check --api-base and that the server runs"
        fix = fix.replace("KEY", self._settings.api_key_env)
        return self._error(f"{what}: {self._message(error)}", texts, f"{fix}, {AGAIN}")

    def _error(self, what: str, texts: list[str], fix: str) -> ModelError:
        where = f"{self.url}, model {self._model}, {len(texts)} texts, first {excerpt(texts[0])}"
        return ModelError(what, where=where, fix=fix)

    def _message(self, error: Exception) -> str:
        """An error's message on one line, without the key, which some servers repeat."""
        text = " ".join(str(error).split())
        return (text.replace(self._key, "[key]") if self._key else text)[:MESSAGE_CHARACTERS]


class Pace:
    """Spaces the requests of all threads evenly; the client calls it before each one, repeated ones too."""

    def __init__(self, per_minute: float) -> None:
        self._gap, self._next, self._lock = 60 / per_minute, 0.0, threading.Lock()

    def __call__(self, request: object) -> None:
        """Wait for the request's turn."""
        del request
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            time.sleep(turn - now)
