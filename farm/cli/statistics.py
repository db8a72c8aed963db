"""``farm stats``: what the cache holds and what it was worth, overall and key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli import options as opt
from farm.cli.output import Column, Table, card, emit, human_ago, human_seconds, human_size, say, short
from farm.cli.session import opened

if TYPE_CHECKING:
    from farm.service import Farm

LOOKED_AT = 1000


def stats(
    keys: Annotated[
        list[str],
        typer.Argument(default_factory=list, show_default=False, metavar="KEY", help="Only these keys, each alone."),
    ],
    by_key: Annotated[
        int, typer.Option("--by-key", metavar="N", min=0, help="The N keys that spared most build time, each alone.")
    ] = 0,
    as_json: opt.Json = False,
) -> None:
    """Say what the cache holds and what it has saved.

    Of what it saved, the time of downloads is taken off; that of deserialising and refitting as far as it is known.
    """
    from farm.cli.collecting import budget_facts

    with opened() as farm:
        if keys or by_key:
            names = [name for prefix in keys for name in _keys(farm, prefix)] + farm.index.best_keys(by_key)
            documents = _documents(farm, list(dict.fromkeys(names)))
        else:
            documents, document = [], _overall(farm)
    if as_json:
        emit(documents if keys or by_key else document)
    elif by_key and not documents:
        say("nothing has been a hit yet")
    elif keys or by_key:
        _show_keys(documents)
    else:
        for title, facts in stats_facts(document):
            card(title, facts)
        if document["budgets"]:
            card("budgets", budget_facts(document["budgets"]))


def _overall(farm: Farm) -> dict[str, Any]:
    from farm.accounting import overall
    from farm.cli.collecting import budget_documents

    numbers = {**farm.index.stats(), "budgets": budget_documents(farm.config)}
    return {**numbers, "use": overall(numbers["counters"])}


# -- by key --------------------------------------------------------------------------------------------------


def _keys(farm: Farm, prefix: str) -> list[str]:
    """The whole keys that ``prefix`` stands for, or those of the recipe or engine that it is short for."""
    from farm.errors import BadInput, NoSuchThing

    if not prefix.strip():
        raise BadInput("give a key", "'farm ls engines --json' shows whole keys")
    known = [part.key for part in farm.index.parts(prefix)]
    made = farm.index.engines(prefix=prefix, limit=LOOKED_AT, namespaces=farm.cache.namespaces)
    known += [str(engine.manifest.get("key", "")) for engine in made]
    whole = prefix if prefix.startswith("sha256:") else f"sha256:{prefix}"
    mine = [key for key in known if key.startswith(whole)] or known
    found = sorted({key for key in mine if key})
    if not found:
        raise NoSuchThing(f"no key, recipe or engine starts with '{prefix}'", "'farm ls engines' lists them")
    return found


def _documents(farm: Farm, keys: Sequence[str]) -> list[dict[str, Any]]:
    numbers = farm.index.usage(keys)
    return [_document(farm, key, numbers.get(key, {})) for key in keys]


def _document(farm: Farm, key: str, numbers: Mapping[str, float]) -> dict[str, Any]:
    from farm.accounting import of_key

    engines = farm.index.engines(prefix=key, limit=LOOKED_AT, namespaces=farm.cache.namespaces)
    last = farm.index.last_used([(engine.recipe, engine.namespace) for engine in engines])
    parts = next((part for part in farm.index.parts(key)), None)
    return {
        "key": key,
        "model": parts.model if parts else None,
        "target": parts.target if parts else None,
        "engines": [
            {
                "engine": engine.digest,
                "recipe": engine.recipe,
                "namespace": engine.namespace,
                "size": engine.size,
                "created": engine.created,
                "last_used": last.get((engine.recipe, engine.namespace)),
            }
            for engine in engines
        ],
        "bytes": sum({engine.digest: engine.size for engine in engines}.values()),
        "use": of_key(numbers),
    }


def _show_keys(documents: Sequence[dict[str, Any]]) -> None:
    if len(documents) == 1:
        (item,) = documents
        card(f"key {short(item['key'])}", [*_facts_of_key(item), *_use_facts(item["use"])])
        return
    table = Table(
        [
            Column("key"),
            Column("model", cut="head"),
            Column("target"),
            Column("hits", right=True),
            Column("misses", right=True),
            Column("net saved", right=True),
            Column("stored", right=True),
            Column("served", right=True),
            Column("last used"),
        ]
    )
    for item in documents:
        use = item["use"]
        net, served = human_seconds(use["seconds"]["net_saved"]), human_size(use["served"]["bytes"])
        counts = (f"{use['hits']:,}", f"{use['misses']:,}")
        used = human_ago(_last(item)) if _last(item) else "never"
        stored = human_size(item["bytes"])
        table.add(short(item["key"]), item["model"] or "", item["target"] or "", *counts, net, stored, served, used)
    table.show()


def _last(item: Mapping[str, Any]) -> float | None:
    return max((one["last_used"] for one in item["engines"] if one["last_used"]), default=None)


def _facts_of_key(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("model", item["model"] or ""),
        ("target", item["target"] or ""),
        ("engines", f"{len(item['engines']):,}"),
        ("stored", human_size(item["bytes"])),
        ("last used", human_ago(_last(item)) if _last(item) else "never"),
    ]


# -- for people ----------------------------------------------------------------------------------------------


def stats_facts(numbers: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Titles, each with its named facts: what the cache holds, how it is used, how builds end."""
    held = [
        ("engines", f"{numbers.get('engines', 0):,}"),
        ("distinct plans", f"{numbers.get('blobs', 0):,}"),
        ("bytes", human_size(numbers.get("bytes", 0))),
        ("programs", f"{numbers.get('programs', 0):,}"),
    ]
    ended = [(str(state), f"{count:,}") for state, count in numbers.get("builds", {}).items()]
    return [("cache", held), ("use", _use_facts(numbers["use"])), ("builds", ended or [("none", "yet")])]


def _use_facts(use: Mapping[str, Any]) -> list[tuple[str, str]]:
    seconds, asked = use["seconds"], use["asked"]
    facts = [
        ("asked", f"{asked:,}"),
        ("hits", f"{use['hits']:,}" + (f" ({use['hit_rate']:.0%})" if asked else "")),
        ("misses", f"{use['misses']:,}"),
        *((f"  {why['n']:,} ({why['rate']:.0%})", why["why"]) for why in use["miss_reasons"].values()),
        ("builds avoided", f"{use['builds_avoided']:,}" + (f" ({use['joined']:,} joined)" if use["joined"] else "")),
        ("build time spared", human_seconds(seconds["build_time_spared"])),
        *((f"  less {name}", _spent(seconds[name])) for name in ("download", "deserialise", "refit")),
        ("net saved", human_seconds(seconds["net_saved"])),
        ("served", f"{use['served']['engines']:,} ({human_size(use['served']['bytes'])})"),
    ]
    return facts + ([("built all the same", f"{use['forced']:,}")] if use.get("forced") else [])


def _spent(seconds: float | None) -> str:
    return "not known" if seconds is None else human_seconds(seconds)
