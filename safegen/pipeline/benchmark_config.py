"""The configuration of a benchmark: one TOML file that names a run, defences, suites, attacks and their budgets."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationError, model_validator

from safegen.attacks.attack_settings import InversionSettings, RelearningSettings, TokenSearchSettings
from safegen.config import Count, RunConfig, Section, SuiteSection, first_problem, load_config
from safegen.errors import ConfigError
from safegen.shipped import locate

UNEDITED = "unedited"
DefenceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+_.-]{0,63}$")]
Seeds = Annotated[tuple[int, ...], Field(min_length=1)]


class SearchSection(Section):
    """The black-box token search.

    Attributes:
        targets: Prompts of the explicit suite that are searched for, for each seed.
        words: Names of the concept that are replaced; empty takes the miniature's own names of the asked object.
        budget: Of one search.
    """

    targets: Count = 14
    words: tuple[str, ...] = ()
    budget: TokenSearchSettings = TokenSearchSettings()


class InversionSection(Section):
    """Concept inversion.

    Attributes:
        pictures: Drawn with the learnt tokens, for each seed and concept.
        budget: Of one inversion.
    """

    pictures: Count = 4
    budget: InversionSettings = InversionSettings()


class RelearningSection(Section):
    """Fine-tuning after the defence.

    Attributes:
        prompts: Prompts of the explicit suite that are drawn at every measured step.
        seeds: Evaluation seeds that it is done for; None for all.
        budget: Of one fine-tuning.
    """

    prompts: Count = 21
    seeds: Seeds | None = None
    budget: RelearningSettings = RelearningSettings()


class BenchmarkConfig(Section):
    """A whole benchmark.

    Attributes:
        schema_version: Version of this format.
        run: Run configuration: base model, data, detector, sampler, stores and tracking.
        out: Folder for benchmark.json, benchmark.md and their figures.
        seeds: Evaluation seeds; each draws its own prompts and latents.
        defences: Names that `safegen.bootstrap.open_defence` knows; "unedited" is measured besides.
        tested: The defence that all others are tested against.
        suites: Which prompts, and how many for each seed.
        explicit: Name of the suite that holds the concept's usual names.
        speed_pictures: Pictures that the speed is measured on.
        search: See the section; None leaves the attack out.
        inversion: Likewise.
        relearning: Likewise.
    """

    schema_version: Literal[1]
    run: Path
    out: Path = Path("docs")
    seeds: Seeds = (0, 1, 2)
    defences: Annotated[tuple[DefenceName, ...], Field(min_length=1)]
    tested: DefenceName = "safegen"
    suites: Annotated[tuple[SuiteSection, ...], Field(min_length=1)]
    explicit: str = "explicit"
    speed_pictures: Count = 64
    search: SearchSection | None = SearchSection()
    inversion: InversionSection | None = InversionSection()
    relearning: RelearningSection | None = RelearningSection()

    @model_validator(mode="after")
    def _names_are_known(self) -> BenchmarkConfig:
        suites = [suite.name for suite in self.suites]
        for what, names in (("suites", suites), ("defences", self.defences), ("seeds", self.seeds)):
            if len(set(names)) != len(names):
                raise ValueError(f"{what} are {', '.join(map(str, names))}; expected each at most once")
        if self.tested not in self.defences:
            raise ValueError(
                f"tested is {self.tested!r}; expected one of defences {', '.join(self.defences)}"
            )
        if self.explicit not in suites:
            raise ValueError(f"explicit is {self.explicit!r}; expected one of suites {', '.join(suites)}")
        return self

    @property
    def order(self) -> tuple[str, ...]:
        """Defences in the order in which they are measured: the unedited model first, the tested one last."""
        others = (name for name in self.defences if name not in (UNEDITED, self.tested))
        return (UNEDITED, *others, self.tested)

    def run_config(self) -> RunConfig:
        """Read the run's configuration.

        Raises:
            ConfigError: It is missing or not as expected.
        """
        return load_config(self.run)


def load_benchmark_config(path: Path, *, quick: bool = False) -> BenchmarkConfig:
    """Read a benchmark's configuration.

    Args:
        path: TOML file; `configs/…` that is not in the working directory means the shipped one.
        quick: Lay its table `quick` over the rest: fewer of everything.

    Raises:
        ConfigError: The file is missing, is no TOML, or has a key or value that is not expected; says which.
    """
    try:
        read = tomllib.loads(locate(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config {path}: is not readable TOML ({error}); mend that line") from error
    over = read.pop("quick", {})
    if quick and not over:
        raise ConfigError(f"config {path}: has no table [quick]; add one, or leave out --quick")
    try:
        BenchmarkConfig.model_validate(read)
        return BenchmarkConfig.model_validate(_laid_over(read, over) if quick else read)
    except ValidationError as error:
        raise ConfigError(f"config {path}: {first_problem(error)}") from error


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with another's keys laid over it, table by table; lists are replaced."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(value, dict) and isinstance(old, dict)
        result[key] = (
            _laid_over(cast("dict[str, Any]", old), cast("dict[str, Any]", value)) if both else value
        )
    return result
