"""The gate by itself, on files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.answer import Answer, answering

commands = typer.Typer()


@commands.command()
@answering
def gate(
    *,
    report: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="report.json of the evaluation.")],
    checkpoint: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The candidate's folder.")],
    policy: Annotated[Path, typer.Option(help="Policy, a TOML file.")],
    champion: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The champion's report.json.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the checks as JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write the failed checks as SARIF.")] = None,
    decision: Annotated[Path | None, typer.Option(help="Write the decision as JSON.")] = None,
) -> Answer:
    """Decide whether a checkpoint may be released: exit 0 pass, 1 blocked, 3 could not decide (and blocks).

    Example: safegen gate --report report.json --checkpoint candidate --policy policies/miniature.toml
    """
    import json

    from safegen import __version__, api
    from safegen.domain.decision_formats import as_json, as_junit, as_markdown, as_sarif

    made = api.gate(report, checkpoint, policy, champion=champion)
    sarif_text = as_sarif(made, report_uri=report.as_posix(), tool_version=__version__)
    for path, text in ((junit, as_junit(made)), (sarif, sarif_text), (decision, as_json(made))):
        if path is not None:
            path.write_text(text)
    return Answer(json.loads(as_json(made)), as_markdown(made), made.exit_code)
