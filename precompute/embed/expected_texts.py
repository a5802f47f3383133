"""What a build will ask its guide for, told to the guide before it begins."""

from __future__ import annotations

from collections.abc import Iterator

from ...shared.evaluation.retrieval import RetrievalSet
from ...shared.types import Role
from ..corpus import Corpus
from ..guides.base import Guide
from ..guides.response_cache import answers_in
from ..settings import IndexSettings
from .reuse import OldVectors

TEXTS_TOLD = 8_192


def older_vectors(settings: IndexSettings, guide: Guide) -> OldVectors | None:
    """The vectors of the index that ``--reuse`` names; an unfinished one has answers, which the guide itself reads.

    Raises:
        IndexFaultError: It is no finished index and holds no answers, or is damaged.
    """
    of_api = settings.guide.startswith("api:")
    if settings.reuse is None or (of_api and answers_in(settings.reuse)):
        return None
    return OldVectors(settings.reuse, guide)


def all_texts(
    corpus: Corpus, held_out: RetrievalSet | None, old: OldVectors | None
) -> Iterator[tuple[Role, list[str]]]:
    """Every text that a build asks for: of the corpus, where no older index holds what is needed, and held-out ones.

    Args:
        corpus: The pairs.
        held_out: The texts of an evaluation.
        old: The older index.
    """
    for start, stop in corpus.part_ranges(TEXTS_TOLD):
        part = corpus.texts[start:stop]
        new = part.filter(~old.holds(part)) if old else part
        yield part["role"][0], new["text"].to_list()
    if held_out:
        yield "query", list(held_out.queries.values())
        yield "document", list(held_out.corpus.values())
