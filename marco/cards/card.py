"""Cards of students and datasets: what each is made of, told from its manifest."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import (
    DatasetCard,
    DatasetCardData,
    EvalResult,
    ModelCard,
    ModelCardData,
)

from marco.cards.lineage import Made, hub_datasets, lineage, told_config
from marco.data.statistics import format_stats
from marco.disk import replace_text
from marco.engines.registry import EMBEDDED
from marco.errors import UserError
from marco.manifest import CARD, CARDED, MANIFEST, order_of, read_manifest
from marco.progress import duration
from marco.reporting.results import FILE as RESULTS
from marco.reporting.results import TaskScores, collect

EMBEDDED_HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
TAGS = ["marco", "reasoning", "arXiv:2503.01461"]
MANNER = "in the manner of Marco-o1 v2 (arXiv 2503.01461)"
LICENCE = ("license", "license_name", "license_link")
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def card(
    folder: Path,
    *,
    repo: str | None = None,
    license: str | None = None,
    datasets: Sequence[str] = (),
) -> ModelCard | DatasetCard:
    """The card of a finished student or dataset; `repo` is its name on the hub.

    `datasets` are the hub's names of those that a student learnt. A licence that the folder's card
    states stays, unless `license` is given. UserError where the folder is of another stage.
    """
    folder = folder.absolute()
    manifest, made = read_manifest(folder), lineage(folder)
    licence: dict[str, Any] = {"license": license} if license else _licence_of(folder / CARD)
    name = repo.split("/")[-1] if repo else made[0].name
    if kind_of(folder) == "student":
        data, parts = _student_card(folder, made, repo=repo, datasets=datasets)
    else:
        data, parts = _dataset_card(folder, repo=repo)
    data.__dict__ |= licence
    parts += ["## Made of", _made_of(made), "## Configs", *_configs(made)]
    parts += ["## Versions", _versions(manifest), "## Licence", _licence_text(licence, made)]
    text = "\n\n".join([f"# {name}", *parts])
    of = ModelCard if isinstance(data, ModelCardData) else DatasetCard
    return of(f"---\n{data.to_yaml()}\n---\n\n{text}\n")


def _student_card(
    folder: Path, made: Sequence[Made], *, repo: str | None, datasets: Sequence[str]
) -> tuple[ModelCardData, list[str]]:
    scores = _scores_of(folder, made[0].key)
    results = [result for score in scores for result in score.eval_results()]
    data = ModelCardData(
        base_model=_base_model(folder),
        datasets=[*datasets, *hub_datasets(made)] or None,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=made[0].name if results else None,
        eval_results=results or None,
    )
    title = read_manifest(folder)["labels"]["title"]
    what = f"“{title}”: a student of marco, trained on chains of thought {MANNER}."
    parts = [what, _load_student(repo or made[0].name), "## Scores", _score_table(scores)]
    return data, [*parts, "## Training", _training(folder)]


def _dataset_card(folder: Path, *, repo: str | None) -> tuple[DatasetCardData, list[str]]:
    path = folder / "stats.json"
    stats = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    data = DatasetCardData(
        size_categories=_size(stats["rows"]) if stats else None,
        task_categories="text-generation",
        tags=TAGS,
        configs=[{"config_name": "default", "data_files": "data.parquet"}],
    )
    parts = [_dataset_text(folder), _load_dataset(repo)]
    if stats:
        parts += ["## Statistics", f"```text\n{format_stats(stats)}\n```"]
        if not stats["dropped_error_classes"]:
            parts.append("No chain was dropped for an error class.")
    return data, parts


def kind_of(folder: Path) -> str:
    """`student` or `dataset`; UserError where a folder is of another stage, or unfinished."""
    kind = read_manifest(folder)["stage"]
    if kind not in CARDED:
        raise UserError(f"{folder} holds {kind}: cards are of students and datasets")
    return kind


def _size(rows: int) -> str | None:
    return next((size for n, size in SIZES.items() if rows < n), None)


def write(folder: Path, *, license: str | None = None) -> Path:
    """Write the card of a finished student or dataset to its `README.md`; that file.

    It is no part of what the manifest seals: a student's is written anew when it has scores.
    """
    path = folder / CARD
    try:
        replace_text(path, str(card(folder, license=license)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _base_model(folder: Path) -> str | None:
    """The hub's name of the model that training began with; None for a folder of someone's."""
    model = order_of(folder)["config"]["student"]
    if model == EMBEDDED:
        return EMBEDDED_HUB_NAME
    is_folder = os.path.isabs(model) or Path(model).exists()
    return None if is_folder else told_config(folder, "student").get("student")


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """A task's figures of a student, and how they were come by."""

    task: str
    split: str
    decoding: str
    figures: TaskScores

    def eval_results(self) -> list[EvalResult]:
        shares = {"accuracy": self.figures.accuracy, "no_answer": self.figures.no_answer}
        return [
            EvalResult(
                task_type="text-generation",
                dataset_type=self.task,
                dataset_name=self.task,
                dataset_split=self.split,
                metric_type=name,
                metric_name=f"{name} (%)",
                metric_args={"decoding": self.decoding},
                metric_value=round(100 * share, 1),
            )
            for name, share in shares.items()
        ]


def _scores_of(folder: Path, key: str) -> list[_Scored]:
    """The scores of a student, in the outputs that it lies in."""
    found = []
    for path in sorted((folder.parent.parent / "scores").glob(f"*/{RESULTS}")):
        scores = path.parent
        if scores.name.startswith(".") or not (scores / MANIFEST).is_file():
            continue
        inputs = read_manifest(scores)["inputs"].values()  # `student` of its row, `model` by hand
        if all(entry["key"] != key for entry in inputs):
            continue
        config = order_of(scores)["config"]
        [result] = collect([scores])
        for task, figures in result.tasks.items():
            how = {"split": config["split"], "decoding": config["decoding"]["name"]}
            told = figures.model_copy(update={"seconds": None})  # else the same twice would differ
            found.append(_Scored(task=task, figures=told, **how))
    return list(dict.fromkeys(found))


def _score_table(scores: Sequence[_Scored]) -> str:
    if not scores:
        return "None yet."
    lines = [
        "| task | split | decoding | n | accuracy | no answer |",
        "|---|---|---|---:|---:|---:|",
    ]
    for score in scores:
        figures = score.figures
        cells = [score.task, score.split, score.decoding, str(figures.n)]
        cells.append(_percent(figures.accuracy, figures.accuracy_interval))
        cells.append(_percent(figures.no_answer, figures.no_answer_interval))
        lines.append("| " + " | ".join(cells) + " |")
    confidence = scores[0].figures.confidence
    return "\n".join(
        [*lines, "", f"In % of all n problems, with {100 * confidence:g} % intervals."]
    )


def _percent(share: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{100 * share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _dataset_text(folder: Path) -> str:
    config = told_config(folder, "dataset")
    if config["form"] == "published":
        source = config["published"]["file"] or config["published"]["hub"]
        return f"Long chains of thought of the published set `{source}`, as marco learns them."
    bucket = "" if config["bucket"] == "any" else f", of each tree the {config['bucket']}"
    if config["form"] == "pairs":
        what = "Preference pairs of a correct and a wrong chain of thought from one tree"
    else:
        what = "Correct chains of thought from trees"
    return f"{what}{bucket}: a dataset of marco, {MANNER}."


def _load_student(name: str) -> str:
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n```\n\n'
        "Prompts are the bare problem as one user turn, in the tokenizer's chat template."
    )


def _load_dataset(repo: str | None) -> str:
    source = f'"{repo}"' if repo else '"parquet", data_files="data.parquet"'
    return (
        "```python\nfrom datasets import load_dataset\n\n"
        f'rows = load_dataset({source}, split="train")\n```\n\n'
        "Prompts and chains are lists of messages, as TRL reads them."
    )


def _training(folder: Path) -> str:
    path = folder / "metrics.json"
    if not path.is_file():
        return "No figures of it were kept."
    metrics = json.loads(path.read_text(encoding="utf-8"))
    told = f"{metrics['steps']:.0f} steps in {duration(metrics['seconds'])}"
    return f"{told}, last loss {metrics['last/loss']:.4f}. Every step: `metrics.csv`."


def _made_of(made: Sequence[Made]) -> str:
    lines = []
    for stage in made:
        use = f"{stage.use}: " if stage.use else ""
        again = ", as above" if stage.is_repeated else ""
        lines.append(f"{'  ' * stage.depth}- {use}`{stage.name}`, key `{stage.key}`{again}")
    return "\n".join(lines)


def _configs(made: Sequence[Made]) -> list[str]:
    parts = []
    for stage in made:
        if stage.folder is None or stage.kind is None or stage.is_repeated:
            continue
        config = yaml.safe_dump(
            told_config(stage.folder, stage.kind), sort_keys=False, allow_unicode=True, width=100
        )
        parts.append(f"### {stage.kind} `{stage.name}`\n\n```yaml\n{config}```")
    return parts


def _versions(manifest: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())


def _licence_of(path: Path) -> dict[str, Any]:
    """What a card says of the licence: that is the person's, and stays."""
    if not path.is_file():
        return {}
    try:
        data = ModelCard.load(path).data.to_dict()
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: its header is no YAML: {str(error).splitlines()[0]}; mend or delete it"
        ) from error
    return {name: data[name] for name in LICENCE if data.get(name)}


def _licence_text(licence: Mapping[str, Any], made: Sequence[Made]) -> str:
    if licence:
        return (
            f"`{licence.get('license_name') or licence.get('license')}`, as whoever made it states."
        )
    kinds = {stage.kind for stage in made}
    sources = ["the model that it began with"] if made[0].kind == "student" else []
    sources += ["the models that wrote the trees and their problems"] if "trees" in kinds else []
    sources += ["the published sets that it names"] if hub_datasets(made) else []
    return f"Not stated: `license` in the header is to be filled in, by {' and '.join(sources)}."
