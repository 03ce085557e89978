"""Students and datasets on the Hugging Face hub, with their cards.

The hub's client takes a second to import, and is asked for where it is used: scripts import this.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from marco.cards.lineage import lineage
from marco.errors import UserError
from marco.manifest import CARD

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"
REPO_TYPES = {"student": "model", "dataset": "dataset"}
# What is uploaded of a folder; its config and manifest tell where things lie on this machine.
UPLOADED = {
    "student": (
        CARD,
        *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
        *("tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
        *("chat_template.jinja", "metrics.csv", "metrics.json"),
    ),
    "dataset": (CARD, "data.parquet", "stats.json"),
}


def token() -> str:
    """The hub's token, from the environment only; UserError where there is none."""
    found = os.environ.get(TOKEN, "").strip()
    if not found:
        raise UserError(
            f"pushing to the hub needs a token that may write, in the environment as {TOKEN}; "
            "it is read from nowhere else"
        )
    return found


def check_access(owner: str) -> None:
    """UserError unless the token may push to what `owner`, a user or organisation, has."""
    api = _api()
    try:
        account = api.whoami()
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(f"cannot push to {owner}: {_reason(error, api)}") from error
    owners = [account["name"], *(organisation["name"] for organisation in account["orgs"])]
    if owner not in owners:
        raise UserError(f"cannot push to {owner}: the token in {TOKEN} is for {', '.join(owners)}")
    if account["auth"]["accessToken"]["role"] == "read":
        raise UserError(f"cannot push to {owner}: the token in {TOKEN} may only read")


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = True,
    license: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """Upload a student or dataset with its card to `owner/name` on the hub; the commit's address.

    What goes there is listed in `UPLOADED`. The repository is made where it is missing, and must
    not be public if `private`. UserError without a token, for one that is refused, without a
    network, and for a name that the hub does not take.
    """
    from marco.cards.card import card, kind_of

    kind = kind_of(folder)
    repo_type = REPO_TYPES[kind]
    own_card = card(folder, repo=repo, license=license, datasets=datasets)
    api = _api()
    try:
        own_card.save(folder / CARD)
        api.create_repo(repo, repo_type=repo_type, private=private, exist_ok=True)
        if private and not api.repo_info(repo, repo_type=repo_type).private:
            raise UserError("it is public: push with --public, or to another name")
        commit = api.upload_folder(
            repo_id=repo,
            repo_type=repo_type,
            folder_path=folder,
            allow_patterns=list(UPLOADED[kind]),
            commit_message=f"{kind} {folder.name}",
        )
    except Exception as error:  # the hub's client raises a dozen kinds
        raise UserError(f"cannot push {folder} to {repo}: {_reason(error, api)}") from error
    return commit.commit_url


def push_with_datasets(
    folder: Path, owner: str, *, private: bool = True, license: str | None = None
) -> list[str]:
    """Push a student or dataset, and the datasets that it learnt, each as `owner/<its folder>`.

    Returns the commits' addresses, and raises UserError, as `push`.
    """
    learnt = [m.folder for m in lineage(folder)[1:] if m.kind == "dataset" and not m.is_repeated]
    sources = [source for source in learnt if source is not None]
    commits = [push(source, f"{owner}/{source.name}", private=private) for source in sources]
    names = [f"{owner}/{source.name}" for source in sources]
    own = f"{owner}/{folder.name}"
    return [*commits, push(folder, own, private=private, license=license, datasets=names)]


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(token=token(), library_name="marco")


def _reason(error: Exception, api: "HfApi") -> str:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status == 401:
            return f"the hub refuses the token in {TOKEN}"
        if status == 403:
            return f"the token in {TOKEN} may not write there"
        return f"the hub says {status}: {error.server_message or error.response.reason_phrase}"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{api.endpoint}: {type(error).__name__}: {first}"
