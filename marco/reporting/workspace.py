"""A W&B workspace for a table: its rows side by side, their training, samples and trees.

python -m marco.reporting workspace step_by_step [override ...] [--project P] [--entity E]
                                                 [--dry-run] [--json FILE]
"""

import argparse
import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from marco.cli import params_of_sweep, row_of_table
from marco.config import ROOT
from marco.errors import UserError, near
from marco.evaluation.error_classes import PRIMARY
from marco.reporting.allowlist import Redactor
from marco.reporting.loggers.protocol import STEP
from marco.reporting.paper import COLUMN_OF
from marco.sweep import folder_name

DESCRIPTION = "Make a W&B workspace for a table: bars per row, curves of training, samples, trees."
NEEDED = "a workspace needs the extra `loggers`: pip install -e .[loggers]"
TIMEOUT_S = "20"
# Curves of training: title, and the metrics in one panel.
CURVES = {
    "loss": ["train/loss"],
    "loss, its terms": ["train/loss/sft", "train/loss/preference"],
    "reward margin": ["train/rewards/margin"],
    "rewards of both sides": ["train/rewards/chosen", "train/rewards/rejected"],
    "share of pairs that are told apart": ["train/rewards/accuracy"],
    "chosen below the reference": ["train/rewards/chosen_below_reference"],
    "margin by length of the chosen chain": [
        "train/rewards/margin/short",
        "train/rewards/margin/medium",
        "train/rewards/margin/long",
    ],
    "correlation of margin and length": ["train/margin_length_correlation"],
    "validation": ["validation/loss", "validation/rewards/accuracy"],
    "samples on the way: no answer": ["samples/no_answer"],
    "samples on the way: accuracy": ["samples/accuracy"],
    "gradient norm": ["train/grad_norm"],
    "learning rate": ["train/learning_rate"],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes beside `--json`."""
    tables = ", ".join(_tables())
    parser.add_argument("table", metavar="TABLE", help=f"one of {tables}")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="what the table runs with beside its rows and seeds: size=paper",
    )
    parser.add_argument("--project", help="W&B project; default: logger.project")
    parser.add_argument("--entity", help="W&B user or team; default: logger.entity, or your own")
    parser.add_argument("--dry-run", action="store_true", help="show what would be made")


def figures(options: argparse.Namespace) -> dict[str, Any]:
    """The workspace that was made, as JSON: its name, `sections` with panels, `url`, and `spec`.

    With `dry_run` nothing is sent, and the `url` is None. UserError for an unknown table, and where
    W&B cannot be reached or lets nobody in.
    """
    config = _composed(options.table, options.overrides)
    entity = options.entity or config["logger"].get("entity")
    made = build(
        config["group"],
        tasks=config["tasks"],
        swept=config["swept"],
        project=options.project or config["logger"].get("project") or "marco",
        entity=entity or ("(yours)" if options.dry_run else _entity()),
    )
    return {
        "name": made.name,
        "project": f"{made.entity}/{made.project}",
        "url": None if options.dry_run else _saved(made),
        "sections": {s.name: [_title(panel) for panel in s.panels] for s in made.sections},
        "spec": json.loads(made._to_model().spec.model_dump_json(by_alias=True, exclude_none=True)),
    }


def text(told: dict[str, Any]) -> str:
    """Where the workspace is, and what it shows, in lines."""
    where = told["url"] or f"{told['project']} (not made: a dry run)"
    lines = [f"{told['name']}: {where}"]
    for section, panels in told["sections"].items():
        lines.append(f"  {section}")
        lines += [f"    {panel}" for panel in panels]
    return "\n".join(lines) + "\n"


def build(
    group: str, *, tasks: Sequence[str], swept: Sequence[str], project: str, entity: str
) -> Any:
    """The workspace of the rows of a table, by their own runs in its `group`; nothing is sent.

    Raises UserError where the extra `loggers` is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Of the library itself, as it is imported.
            warnings.simplefilter("ignore", DeprecationWarning)
            import wandb_workspaces.workspaces as ws
            from wandb_workspaces import expr
    except ImportError as error:
        raise UserError(f"{NEEDED} ({error})") from error
    scored = [name for task in tasks for name in _scored(task)]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=group,
        sections=[
            _section("Rows", [panel for name in scored for panel in _rows(name, swept)], columns=2),
            _section("Answers", [panel for task in tasks for panel in _answers(task)], columns=3),
            _section("Training", _training(), columns=3),
            _section("Samples", _shown(), columns=1),
            _section("Trees", _trees(), columns=2),
        ],
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group") == group, expr.Metric("JobType") == "scores"),
            pinned_columns=["run:displayName", "run:state"]
            + [f"summary:{task}/{name}" for task in scored for name in ("accuracy", "no_answer")],
        ),
    )


def _section(name: str, panels: Sequence[Any], *, columns: int) -> Any:
    import wandb_workspaces.workspaces as ws

    layout = ws.SectionLayoutSettings(columns=columns, rows=-(-len(panels) // columns))
    return ws.Section(name=name, panels=list(panels), is_open=True, layout_settings=layout)


def _rows(task: str, swept: Sequence[str]) -> list[Any]:
    """Accuracy and no-answer ratio per row, and over the key that the table sweeps, if any.

    Bars are means over the seeds of a row, with their range.
    """
    import wandb_workspaces.reports.v2 as wr

    shares = {"accuracy": f"{task}/accuracy", "no answer": f"{task}/no_answer"}
    bars = [_per_row(f"{task}: {name}", [metric]) for name, metric in shares.items()]
    over = [
        wr.ScatterPlot(
            title=f"{task}: {name} over {key}", x=wr.Config(key), y=wr.SummaryMetric(metric)
        )
        for key in swept
        for name, metric in shares.items()
    ]
    return [*bars, *over]


def _answers(task: str) -> list[Any]:
    """What is wrong with answers, what more tries bring, and what training has to do with it."""
    import wandb_workspaces.reports.v2 as wr

    classes = [f"{task}/error_classes/{name}/share" for name in PRIMARY]
    return [
        _per_row(f"{task}: error classes", classes),
        wr.LinePlot(
            title=f"{task}: solved within N tries",
            x=f"{task}/tries",
            y=[f"{task}/test_at_tries"],
            title_x="tries",
            title_y="share of problems",
        ),
        wr.LinePlot(
            title=f"{task}: solved within the tokens of N tries",
            x=f"{task}/tokens_spent",
            y=[f"{task}/test_at_tokens"],
            title_x="tokens generated for a problem",
            title_y="share of problems",
        ),
        wr.LinePlot(
            title=f"{task}: lengths of responses that ended",
            x=f"{task}/response_tokens",
            y=[f"{task}/response_density"],
            title_x="tokens",
            title_y="density",
        ),
        wr.ScatterPlot(
            title=f"{task}: accuracy and the correlation of margin and length",
            x=wr.SummaryMetric("train/last/margin_length_correlation"),
            y=wr.SummaryMetric(f"{task}/accuracy"),
        ),
    ]


def _per_row(title: str, metrics: Sequence[str]) -> Any:
    import wandb_workspaces.reports.v2 as wr

    return wr.BarPlot(
        title=title,
        metrics=[wr.SummaryMetric(name) for name in metrics],
        groupby=wr.Config("row"),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        range_x=(0, 1),
        max_bars_to_show=40,
    )


def _training() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.LinePlot(title=title, x=STEP, y=[*metrics], title_x="step", max_runs_to_show=40)
        for title, metrics in CURVES.items()
    ] + [
        wr.LinePlot(
            title="margin by difference of lengths",
            x="pairs/length_difference",
            y=["pairs/margin"],
            title_x="tokens of the chosen chain less those of the rejected",
            title_y="nats, mean of a tenth of the pairs",
            max_runs_to_show=40,
        )
    ]


def _shown() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [wr.WeavePanelSummaryTable(table_name="samples"), wr.RunComparer(diff_only="split")]


def _trees() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [
        wr.MediaBrowser(title="trees", media_keys=["trees"], num_columns=1),
        wr.BarPlot(
            title="tokens of the search",
            metrics=[
                wr.SummaryMetric("trees/usage/prompt_tokens"),
                wr.SummaryMetric("trees/usage/completion_tokens"),
            ],
        ),
    ]


def _title(panel: Any) -> str:
    name = getattr(panel, "title", None) or getattr(panel, "table_name", None)
    return f"{name} ({type(panel).__name__})" if name else type(panel).__name__


def _tables() -> list[str]:
    """The experiments that make a table."""
    found = (ROOT / "conf" / "experiments").glob("*.yaml")
    return sorted(path.stem for path in found if OmegaConf.select(OmegaConf.load(path), "table"))


def _composed(table: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a table, as far as a workspace needs it."""
    if table not in _tables():
        raise UserError(f"there is no table {table!r}{near(table, _tables())}: {_tables()}")
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            ask = [f"experiments={table}", *overrides]
            composed = compose("train", overrides=ask, return_hydra_config=True)
            params = params_of_sweep(composed.hydra)
            swept = [f"task={task}" for task in params.get("task", "").split(",") if task]
            each = [compose("train", overrides=[*ask, task]) for task in swept] or [composed]
        logger = OmegaConf.to_container(composed.logger)
        told = {
            "group": folder_name(
                composed.table.name, overrides, row=row_of_table(composed), params=params
            ),
            "tasks": list(dict.fromkeys(task for one in each for task in one.tasks)),
            "swept": composed.table.get("swept", [])[:1],
            "logger": logger,
        }
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"{table}: {str(error).splitlines()[0]}") from error
    return told


def _scored(task: str) -> list[str]:
    """What an evaluation of a task has accuracies of: languages, too, if the paper has them."""
    return [task, *(name for name in COLUMN_OF if name.startswith(f"{task} "))]


def _entity() -> str:
    """The user or team that the key belongs to."""
    return str(_asked(lambda wandb: wandb.Api().default_entity))


def _saved(made: Any) -> str:
    """The address of the workspace, once W&B has taken it."""
    return str(_asked(lambda wandb: made.save().url))


def _asked(question: Any) -> Any:
    """An answer of W&B's; UserError in one line where there is none."""
    os.environ.setdefault("WANDB_HTTP_TIMEOUT", TIMEOUT_S)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    try:
        return question(wandb)
    except Exception as error:  # no key, no network, no right to write there
        told = Redactor({})(str(error)).splitlines() or [type(error).__name__]
        raise UserError(
            f"W&B did not take the workspace: {told[0]} (is WANDB_API_KEY set, and W&B reachable? "
            "--dry-run shows what would be made)"
        ) from error
