"""What is missing is built, or waited for where somebody else builds it, and every entry gets its lock line."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from farm.asks import Answer
from farm.builds import Build
from farm.cache import Miss
from farm.index import Found
from farm.prebuilding.lines import line_of, with_weights
from farm.prebuilding.planning import ANOTHERS, serves
from farm.prebuilding.standing import Item, Prebuild, State
from farm.service import Farm

NOT_IN_TIME = "it was not finished in the time given"


def build(
    farm: Farm,
    found: Prebuild,
    *,
    timeout: float | None = None,
    on_change: Callable[[Sequence[Build]], None] = lambda builds: None,
) -> Prebuild:
    """Build what is missing; how every entry stands then. What is not finished within ``timeout`` seconds has failed,
    and nobody waits for it any more. One failure stops nothing else."""
    items = _built(farm, found, timeout, on_change)
    return replace(found, items=tuple(with_weights(farm, item) for item in items))


def _built(
    farm: Farm, found: Prebuild, timeout: float | None, on_change: Callable[[Sequence[Build]], None]
) -> list[Item]:
    items = list(found.items)
    missing = [n for n, item in enumerate(items) if item.state is State.MISSING]
    if not missing:
        return items
    started = time.monotonic()
    identities = [identity for n in missing if (identity := items[n].identity) is not None]
    answers = farm.submit_identified(identities, exact=True)
    left = None if timeout is None else max(0.0, timeout - (time.monotonic() - started))
    ended = farm.wait(answers, on_change=on_change, timeout=left)
    if any(str(answer.outcome) in ("queued", "joined") and answer.engine is None for answer in ended):
        farm.abandon()
    looked = farm.cache.lookup(identities)
    for n, answer, hit in zip(missing, ended, looked, strict=True):
        items[n] = _ended(items[n], answer, hit)
    return items


def _ended(item: Item, answer: Answer, hit: Found | Miss) -> Item:
    item, identity = replace(item, seconds=answer.seconds), answer.identity
    if answer.error:
        return replace(item, state=State.FAILED, why=(answer.error,), hint=answer.hint)
    if not answer.outcome.has_engine or answer.engine is None:
        return replace(item, state=State.FAILED, why=(NOT_IN_TIME,), hint="give it more, or a faster worker")
    if isinstance(hit, Miss):
        return replace(item, state=State.FAILED, why=(hit.why,), hint="ask again")
    if not serves(hit):  # what was built has gone again, or is not believed, and another recipe's was found
        return replace(item, state=State.FAILED, why=(ANOTHERS,), hint="ask again")
    state = State.JOINED if str(answer.outcome) == "joined" else State.BUILT
    return replace(item, state=state, line=line_of(item.entry, identity, hit.engine))
