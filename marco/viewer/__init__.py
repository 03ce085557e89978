"""The tree browser: `python -m marco.viewer <trees folder>` (docs/viewer.md)."""
