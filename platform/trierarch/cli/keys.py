"""``trierarch keys``: create, list and revoke API keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trierarch.cli.ledger_options import actor, format_instant, ledger_options, open_ledger
from trierarch.cli.tables import format_table
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import ModelName, TenantId

if TYPE_CHECKING:
    from trierarch.adapters.ledger import StoredKey


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    A key belongs to a tenant, and the tenant pays for what the key is used for. Keys
    are stored as hashes: a key is shown once, when it is created.
    """


@keys.command()
@click.option("--tenant", required=True, metavar="NAME", help="Who pays for the key's requests.")
@click.option("--name", default="", metavar="TEXT", help="To tell keys of a tenant apart.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Model the key may use; repeat for several.  [default: all models]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
def create(
    tenant: str,
    name: str,
    models: tuple[str, ...],
    as_json: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Create a key and print it, this once.

    The key works within about a second, also on gateways that already run.
    """
    allowed = [ModelName(model) for model in models] or None
    with open_ledger(data_dir, ledger_address, create=True) as ledger:
        text, key = ledger.create_key(TenantId(tenant), name, allowed, actor=actor())
    if as_json:
        click.echo(
            json.dumps(
                {
                    "key": text,
                    "key_id": key.key_id,
                    "tenant": tenant,
                    "name": name,
                    "models": sorted(models) or None,
                }
            )
        )
        return
    click.echo(text)
    click.echo(
        f"Key {key.key_id} of tenant {tenant}. It is not stored and not shown again. Gateways that"
        " run may refuse it for up to a second, until they have read it.",
        err=True,
    )


@keys.command("list")
@click.option("--tenant", default=None, metavar="NAME", help="Only this tenant's keys.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ledger_options
def list_keys(
    tenant: str | None, as_json: bool, data_dir: Path | None, ledger_address: str | None
) -> None:
    """List keys by their public ids, live and revoked."""
    with open_ledger(data_dir, ledger_address, create=False) as ledger:
        stored = ledger.keys(None if tenant is None else TenantId(tenant))
    if as_json:
        click.echo(json.dumps([_as_json(key) for key in stored], indent=2))
        return
    rows = [
        (
            key.key.key_id,
            key.key.tenant,
            key.name,
            _models(key),
            format_instant(key.created_unix_seconds),
            "live"
            if key.revoked_unix_seconds is None
            else f"revoked {format_instant(key.revoked_unix_seconds)}",
        )
        for key in stored
    ]
    header = ("key id", "tenant", "name", "models", "created", "state")
    click.echo(format_table(header, rows, text_columns=len(header)))


def _models(key: StoredKey) -> str:
    allowed = key.key.allowed_models
    return "all" if allowed is None else ", ".join(sorted(allowed)) or "none"


def _as_json(key: StoredKey) -> dict[str, Any]:
    allowed = key.key.allowed_models
    return {
        "key_id": key.key.key_id,
        "tenant": key.key.tenant,
        "name": key.name,
        "models": None if allowed is None else sorted(allowed),
        "created_unix_seconds": key.created_unix_seconds,
        "revoked_unix_seconds": key.revoked_unix_seconds,
    }


@keys.command()
@click.argument("key", required=False, default="")
@click.option("--tenant", default=None, metavar="NAME", help="Whose key it is.")
@click.option("--name", default="", metavar="TEXT", help="The name the key was given.")
@click.option("--all", "every", is_flag=True, help="Revoke all live keys of the tenant.")
@ledger_options
def revoke(
    key: str,
    tenant: str | None,
    name: str,
    every: bool,
    data_dir: Path | None,
    ledger_address: str | None,
) -> None:
    """Revoke a key: gateways refuse it within seconds.

    KEY is a key's public id (see `trierarch keys list`), its name, or the key itself.
    Without KEY the tenant's only live key is meant, or all of them with --all.
    """
    wanted = key or name
    if not wanted and tenant is None:
        raise InvalidInput("say which key: a key id, or --tenant NAME")
    if every and tenant is None:
        raise InvalidInput("--all needs --tenant NAME")
    with open_ledger(data_dir, ledger_address, create=False) as ledger:
        stored = ledger.keys(None if tenant is None else TenantId(tenant))
        live = [one for one in stored if one.revoked_unix_seconds is None]
        matching = [one for one in live if not wanted or _matches(one, wanted)]
        whose = f" of tenant '{tenant}'" if tenant is not None else ""
        if not matching:
            known = any(_matches(one, wanted) for one in stored) if wanted else False
            what = f"key '{_public_part(wanted)}'" if wanted else "live key"
            raise InvalidInput(
                f"{what}{whose} is revoked already" if known else f"there is no {what}{whose}"
            )
        if len(matching) > 1 and not every:
            ids = ", ".join(one.key.key_id for one in matching)
            raise InvalidInput(f"several keys{whose} match, name one: {ids}")
        for one in matching:
            ledger.revoke_key(one.key.key_id, actor=actor())
            click.echo(f"Revoked {one.key.key_id} of tenant {one.key.tenant}.")


def _matches(stored: StoredKey, wanted: str) -> bool:
    return wanted in {stored.key.key_id, stored.name} or wanted.startswith(f"{stored.key.key_id}_")


def _public_part(wanted: str) -> str:
    """Return what of a key may be shown in a message."""
    return "_".join(wanted.split("_")[:2]) if wanted.startswith("trk_") else wanted
