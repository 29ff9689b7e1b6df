"""Running the commands as a user would, in this process."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from synthaug.cli import app


def run(*words: object, code: int = 0) -> Result:
    """Run ``synthaug WORDS``; it must exit with ``code``."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result
