"""Run folder: files, environment, logs, progress."""

from fuzzyseg.run.folder import RunFolder, RunFolderError
from fuzzyseg.run.logs import MetricsLog, Sink

__all__ = ["MetricsLog", "RunFolder", "RunFolderError", "Sink"]
