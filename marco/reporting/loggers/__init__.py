"""The loggers by name; what one needs is imported only where it is asked for."""

from pathlib import Path

from marco.reporting.config import AnyLogger, MlflowConfig, TensorboardConfig, WandbConfig
from marco.reporting.loggers.protocol import Logger


def make_logger(config: AnyLogger, folder: Path) -> Logger:
    """The logger of a config; `folder` takes what its runs share.

    Raises ImportError where the extra `loggers` is not installed, and whatever a server raises.
    """
    if isinstance(config, WandbConfig):
        from marco.reporting.loggers.wandb_runs import WandbLogger

        return WandbLogger(config)
    if isinstance(config, MlflowConfig):
        from marco.reporting.loggers.mlflow_runs import MlflowLogger

        return MlflowLogger(config, folder)
    if isinstance(config, TensorboardConfig):
        from marco.reporting.loggers.tensorboard_files import TensorboardLogger

        return TensorboardLogger()
    from marco.reporting.loggers.csv_files import CsvLogger

    return CsvLogger()
