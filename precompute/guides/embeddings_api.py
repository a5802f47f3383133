"""A guide behind an embeddings endpoint: what it will cost is told first, and nothing is paid for twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import Any

import numpy as np

from ...shared.errors import ModelError, SettingsError
from ...shared.progress import Advance, console
from ...shared.types import Role
from ..settings import ApiSettings
from ..text_hash import hash_text
from .base import lengths, unit_vectors, usable
from .endpoint import Endpoint
from .response_cache import Answers

# English in the vocabularies of today; code and other scripts differ, in both directions.
BYTES_A_TOKEN = 4


class ApiGuide:
    """A model that somebody else runs, by its name at an OpenAI-compatible endpoint.

    Two endpoints that serve a model of one name count as one guide: its fingerprint is the name, the prompts and the
    dimensions, and neither the URL nor the key. Long texts are cut, or refused, by the endpoint's own rule.

    Args:
        model: Its name.
        prompts: Put before texts of each role.
        dimensions: How many to ask for; None takes what the model has.
        settings: How to ask.
        answers: Those that were kept, and where to keep more.
        dim: What the answers have, where that is known; else one word is sent to learn it.

    Raises:
        SettingsError: The key is missing, or the URL cannot be used.
    """

    def __init__(
        self,
        model: str,
        prompts: dict[Role, str],
        dimensions: int | None,
        settings: ApiSettings,
        answers: Answers,
        dim: int | None = None,
    ) -> None:
        self._model, self._prompts, self._dimensions = model, prompts, dimensions
        self._endpoint = Endpoint(model, dimensions, settings)
        self._settings, self._answers = replace(settings, api_base=self._endpoint.url), answers
        self._dim = dim or dimensions

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker elsewhere takes the key from its own environment: none is in here."""
        return type(self), (self._model, self._prompts, self._dimensions, self._settings, self._answers, self.dim)

    @property
    def dim(self) -> int:
        """See ``Guide``."""
        if self._dim is None:
            self._dim = self._endpoint.ask(["dimensions"]).shape[1]
        return self._dim

    @property
    def same_for_both_roles(self) -> bool:
        """See ``Guide``."""
        return self._prompts["query"] == self._prompts["document"]

    def fingerprint(self) -> dict[str, Any]:
        """See ``Guide``."""
        asked = {"api": self._model, "prompts": dict(self._prompts), "dimensions": self._dimensions}
        return {"name": f"api:{self._model}", "dim": self.dim} | asked

    def expect(self, texts: Iterable[tuple[Role, list[str]]]) -> None:
        """Tell how much is to be sent and what it may cost, before anything is.

        Raises:
            SettingsError: It may cost more than the budget.
        """
        count, size, kept = self._unanswered(texts)
        tokens, price, budget = size / BYTES_A_TOKEN, self._settings.api_price, self._settings.api_budget
        cost = tokens * (price or 0) / 1e6
        told = f"{count:,} texts to send, about {tokens:,.0f} tokens (estimate: {BYTES_A_TOKEN} bytes a token)"
        told += f", about {cost:,.4f} at {price:g} a million" if price is not None else ""
        told += f"; {kept:,} texts were answered before" if kept else ""
        console.print(f"{self._endpoint.url}, model {self._model}: {told}", highlight=False, markup=False)
        if budget is not None and cost > budget:
            raise SettingsError(
                f"This may cost {cost:,.4f}, the budget is {budget:g}; nothing was sent",
                where="--api-budget",
                fix="raise it, or give fewer pairs",
            )

    def _unanswered(self, texts: Iterable[tuple[Role, list[str]]]) -> tuple[int, int, int]:
        """How many texts are to be sent, their bytes, and how many need not be; each text counts once."""
        self._answers.refresh()
        seen, count, size = set[bytes](), 0, 0
        each: Iterator[tuple[Role, str]] = ((role, text) for role, part in texts for text in part)
        for role, text in each:
            key = self._key(text, role)
            if key in self._answers:
                self._dim = self._dim or self._answers.dim(key)
            elif key not in seen:
                count, size = count + 1, size + len((self._prompts[role] + text).encode())
            seen.add(key)
        return count, size, len(seen) - count

    def encode(self, texts: list[str], role: Role, advance: Advance = lambda count: None) -> np.ndarray:
        """See ``Guide``. What was answered before is read; the rest is asked for, several requests at a time."""
        keys = [self._key(text, role) for text in texts]
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        missing = self._answers.fill(keys, vectors)
        advance(len(texts) - len(missing))
        missing.sort(key=lambda row: -len(texts[row]))  # servers pad the texts of a request to the longest
        size = self._settings.api_batch
        batches = [missing[start : start + size] for start in range(0, len(missing), size)]
        with ThreadPoolExecutor(self._settings.api_concurrency) as pool:
            asked = {
                pool.submit(self._paid, [texts[row] for row in rows], [keys[row] for row in rows], role): rows
                for rows in batches
            }
            try:
                for answer in as_completed(asked):
                    vectors[asked[answer]] = answer.result()
                    advance(len(asked[answer]))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # those under way are waited for, and kept
                raise
        return vectors

    def _paid(self, texts: list[str], keys: list[bytes], role: Role) -> np.ndarray:
        """One request, its answer on disk before anything else is done with it."""
        rows = self._endpoint.ask([self._prompts[role] + text for text in texts])
        if rows.shape[1] != self.dim:
            raise ModelError(
                f"Vectors of {rows.shape[1]} dimensions came, {self.dim} before",
                where=f"{self._endpoint.url}, model {self._model}",
                fix="the endpoint serves another model now: give another --out",
            )
        good = np.flatnonzero(usable(lengths(rows)))
        kept = unit_vectors(rows[good], [texts[row] for row in good], self.dim)
        self._answers.keep([keys[row] for row in good], kept)
        return kept if len(good) == len(rows) else unit_vectors(rows, texts, self.dim)  # which names the odd text

    def _key(self, text: str, role: Role) -> bytes:
        """16 bytes that stand for all that is sent."""
        return hash_text(f"{self._model}\0{self._dimensions}\0{self._prompts[role]}{text}")
