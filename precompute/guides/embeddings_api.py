"""A guide behind an embeddings endpoint: it prints what it will cost first, and pays for no text twice."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import numpy as np

from ...shared.errors import SettingsError
from ...shared.progress import Advance, console
from ...shared.types import Role
from ..corpus import hash_text
from ..settings import IndexSettings
from .base import unit_vectors
from .endpoint import Endpoint
from .response_cache import Answers

# English in the vocabularies of today; code and other scripts differ, in both directions.
BYTES_A_TOKEN = 4


class ApiGuide:
    """A model that somebody else runs, by its name at an OpenAI-compatible endpoint.

    Two endpoints that serve a model of one name count as one guide: its fingerprint is the name, the prompts and the
    dimensions, and neither the URL nor the key. Long texts are cut, or refused, by the endpoint's own rule.

    Args:
        settings: The model, its prompts and dimensions, and how to reach it.
        answers: The cache of its answers.
        dim: The model's full dimensions, where they are known; else one word is sent to learn them.

    Raises:
        SettingsError: The key is missing, or the URL cannot be used.
    """

    runs_in_workers = False

    def __init__(self, settings: IndexSettings, answers: Answers, dim: int | None = None) -> None:
        self._model, self._dimensions = settings.guide.removeprefix("api:"), settings.dim
        self._prompts = {"query": settings.query_prompt or "", "document": settings.document_prompt or ""}
        self.same_for_both_roles = self._prompts["query"] == self._prompts["document"]
        self._dim = settings.dim or dim
        self._endpoint = Endpoint(self._model, settings.dim, settings.api)
        self._settings, self._answers = settings.api, answers

    @property
    def dim(self) -> int:
        """See ``Guide``."""
        self._dim = self._dim or self._endpoint.embed(["dimensions"], None).shape[1]
        return self._dim

    def fingerprint(self) -> dict[str, Any]:
        """See ``Guide``."""
        request = {"api": self._model, "prompts": dict(self._prompts), "dimensions": self._dimensions}
        return {"name": f"api:{self._model}", "dim": self.dim} | request

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """Print how much is to be sent and what it may cost, before anything is.

        Raises:
            SettingsError: It may cost more than the budget.
        """
        count, size, cached = self._unanswered(texts)
        tokens, price, budget = size / BYTES_A_TOKEN, self._settings.api_price, self._settings.api_budget
        cost = tokens * (price or 0) / 1e6
        message = f"{count:,} texts to send, about {tokens:,.0f} tokens (estimate: {BYTES_A_TOKEN} bytes a token)"
        message += f", about {cost:,.4f} at {price:g} a million" if price is not None else ""
        message += f"; {cached:,} texts were answered before" if cached else ""
        console.print(f"{self._endpoint.url}, model {self._model}: {message}", highlight=False, markup=False)
        if budget is not None and cost > budget:
            what = f"This may cost {cost:,.4f}, the budget is {budget:g}; nothing was sent"
            raise SettingsError(what, where="--api-budget", fix="raise it, or give fewer pairs")

    def _unanswered(self, texts: Iterable[tuple[Role, list[str]]]) -> tuple[int, int, int]:
        """Count the texts to send, their bytes, and the cached texts; equal requests count once."""
        seen, count, size = set[bytes](), 0, 0
        for role, part in texts:
            requests = {self._key(text, role): self._prompts[role] + text for text in part}
            cached = self._answers.read(requests)
            self._dim = self._dim or next((len(vector) for vector in cached.values()), None)
            new = requests.keys() - cached.keys() - seen
            seen |= requests.keys()
            count, size = count + len(new), size + sum(len(requests[key].encode()) for key in new)
        return count, size, len(seen) - count

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """See ``Guide``. Cached answers are read; the rest is requested, several requests at a time."""
        keys, vectors = [self._key(text, role) for text in texts], np.zeros((len(texts), self.dim), dtype=np.float32)
        cached, missing = self._answers.read(keys), list[int]()
        for row, key in enumerate(keys):
            if len(vector := cached.get(key, ())) == self.dim:
                vectors[row] = vector
            else:
                missing.append(row)
        missing.sort(key=lambda row: -len(texts[row]))  # servers pad the texts of a request to the longest
        advance(len(texts) - len(missing))
        size = self._settings.api_batch
        batches = [missing[start : start + size] for start in range(0, len(missing), size)]
        with ThreadPoolExecutor(self._settings.api_concurrency) as pool:
            requests = {
                pool.submit(self._request, [texts[row] for row in rows], [keys[row] for row in rows], role): rows
                for rows in batches
            }
            try:
                for answer in as_completed(requests):
                    vectors[requests[answer]] = answer.result()
                    advance(len(requests[answer]))
            except BaseException:
                pool.shutdown(cancel_futures=True)  # requests under way are waited for, and their answers kept
                self._answers.upload()
                raise
        return vectors

    def _request(self, texts: list[str], keys: list[bytes], role: Role) -> np.ndarray:
        """Send one request; its answer is on disk before anything else is done with it."""
        rows = self._endpoint.embed([self._prompts[role] + text for text in texts], self.dim)
        usable = [number for number, row in enumerate(rows) if np.isfinite(row).all() and row.any()]
        self._answers.add([keys[number] for number in usable], unit_vectors(rows[usable], [], self.dim))
        return unit_vectors(rows, texts, self.dim)

    def _key(self, text: str, role: Role) -> bytes:
        """16 bytes that stand for all that is sent."""
        return hash_text(f"{self._model}\0{self._dimensions}\0{self._prompts[role]}{text}")
