"""What a benchmark leaves: its document, the page and the figures, also as artifacts of its run."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from safegen.pipeline.benchmark import BenchmarkSession
from safegen.reporting.benchmark_page import write_benchmark_page

DOCUMENT_NAME = "benchmark.json"


class BenchmarkSummary(BaseModel):
    """What `safegen benchmark --json` prints.

    Attributes:
        tested: The defence that others are tested against.
        defences: All that were measured.
        rows: Numbers in the document.
        tests: Paired tests in the document.
        cells: Cells measured.
        seconds: That measuring them took, whenever it was.
        document: The document.
        page: The page.
        run_url: Where the runs are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tested: str
    defences: tuple[str, ...]
    rows: int
    tests: int
    cells: int
    seconds: float
    document: Path
    page: Path
    run_url: str

    @property
    def text(self) -> str:
        """What a person reads."""
        return "\n".join(
            [
                f"{len(self.defences)} defences in {self.cells} cells: {self.rows} numbers, {self.tests} paired tests",
                f"  document: {self.document}",
                f"  page: {self.page}",
                f"  runs: {self.run_url}",
            ]
        )


def publish(session: BenchmarkSession) -> BenchmarkSummary:
    """Write the document, the page and the figures, and keep copies with the run."""
    document, out = session.document(), session.bench.config.out
    out.mkdir(parents=True, exist_ok=True)
    path = out / DOCUMENT_NAME
    pending = path.with_name(f"{path.name}.part")
    pending.write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
    pending.replace(path)
    files = write_benchmark_page(document, out)
    for file in (path, *files):
        session.run.log_artifact(file, "benchmark" if file.suffix != ".svg" else "benchmark/images")
    return BenchmarkSummary(
        tested=document.tested,
        defences=document.defences,
        rows=len(document.rows),
        tests=len(document.tests),
        cells=len(session.cells),
        seconds=document.seconds,
        document=path,
        page=out / "benchmark.md",
        run_url=session.run.url,
    )
