"""The page of an evaluation, made again from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.answer import Answer, answering

commands = typer.Typer()


@commands.command()
@answering
def report(
    *,
    report: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="report.json of the evaluation.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    results: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Its results.parquet, if not beside it.")
    ] = None,
    decision: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The gate's decision.json.")
    ] = None,
    champion: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The champion's report.json.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The run's configuration; with it the page shows pictures.")
    ] = None,
) -> Answer:
    """Write the page of an evaluation: decision, charts, pictures and lineage in one HTML file.

    Example: safegen report --report report.json --decision decision.json --out page.html
    """
    from safegen.config import load_config
    from safegen.pipeline.page import kept_pictures, write_page

    page = write_page(
        report,
        out,
        results=results,
        decision=decision,
        champion=champion,
        kept=None if config is None else kept_pictures(load_config(config)),
    )
    return Answer({"page": str(page), "size_bytes": page.stat().st_size}, f"the page is {page}")
