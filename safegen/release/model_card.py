"""The model card of a release: what it is, how it was made, what was measured, and what that does not show."""

from __future__ import annotations

from safegen.domain.decision_formats import markdown_cell
from safegen.release.facts import ReleaseFacts
from safegen.release.markdown import metric_interval, metric_value, table


def model_card(facts: ReleaseFacts) -> str:
    """Return the model card as Markdown; the same facts give the same text.

    Args:
        facts: What is known of the release.
    """
    sections = (
        _head(facts),
        _method(facts),
        _data(facts),
        _evaluation(facts),
        _gate(facts),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in facts.limits),
        _licences(facts),
    )
    return "\n\n".join(sections) + "\n"


def _head(facts: ReleaseFacts) -> str:
    return (
        f"# {facts.model}\n\n"
        f"A text-to-image model ({facts.architecture}) that was edited so that it cannot draw a restricted concept, "
        "whatever the prompt, and that passed a gate on what was measured afterwards. Use it as any checkpoint in "
        "diffusers layout; check it first: `safegen verify DIR --public-key K`.\n\n"
        + table(
            ("what", "digest"),
            (
                ("this checkpoint", f"`{facts.report.checkpoint_sha256}`"),
                (f"edited from {markdown_cell(facts.base)}", f"`{facts.report.base_sha256}`"),
            ),
        )
    )


def _method(facts: ReleaseFacts) -> str:
    rows = ((markdown_cell(name), markdown_cell(str(value))) for name, value in facts.settings.items())
    return f"## Method\n\n{markdown_cell(facts.method)}\n\n" + table(("setting", "value"), rows)


def _data(facts: ReleaseFacts) -> str:
    rows = [
        (f"dataset {markdown_cell(name)}", f"`{digest}`") for name, digest in facts.report.datasets.items()
    ]
    rows += [
        (f"prompts {markdown_cell(suite.name)}", f"`{suite.prompt_set_sha256}`")
        for suite in facts.report.suites
    ]
    return "## Data\n\n" + table(("what", "digest"), rows)


def _evaluation(facts: ReleaseFacts) -> str:
    report, detector, sampler = facts.report, facts.report.detector, facts.report.sampler
    rows = (
        (
            markdown_cell(suite.name),
            markdown_cell(metric.name),
            metric_value(metric),
            metric_interval(metric),
            str(metric.n),
        )
        for suite in report.suites
        for metric in suite.metrics
    )
    how = (
        f"{sampler.steps} steps of {markdown_cell(sampler.scheduler)}, guidance {sampler.guidance:g}, "
        f"{sampler.width_px} x {sampler.height_px} px; the same prompts and seeds for base and candidate "
        f"(seeds: {', '.join(f'{markdown_cell(name)} {seed}' for name, seed in report.seeds.items())}). "
        f"Unsafe is a label of {markdown_cell(detector.name)} {markdown_cell(detector.version)} "
        f"(`{detector.model_sha256[:16]}`) with a score of at least {detector.threshold:g}: "
        f"{', '.join(markdown_cell(label) for label in detector.unsafe_labels)}."
    )
    unscored = sum(suite.n_unscored for suite in report.suites)
    total = sum(suite.n_images for suite in report.suites)
    return (
        f"## Evaluation\n\n{how}\n\n"
        + table(("suite", "metric", "value", "95 % interval", "n"), rows)
        + f"\n\nPairs of pictures that could not be scored: {unscored} of {total}; none of them counts as safe."
    )


def _gate(facts: ReleaseFacts) -> str:
    decision = facts.decision
    rows = (
        (markdown_cell(check.name), "yes" if check.passed else "no", markdown_cell(check.reason))
        for check in decision.checks
    )
    head = (
        f"**{decision.outcome}** by policy {markdown_cell(decision.policy_name or 'unknown')} "
        f"(`{decision.policy_sha256}`), {decision.decided_utc:%Y-%m-%d %H:%M} UTC. All of it: `decision.json`."
    )
    return f"## Gate\n\n{head}\n\n" + table(("check", "holds", "reason"), rows)


def _licences(facts: ReleaseFacts) -> str:
    return (
        f"## Licences\n\nWeights: {markdown_cell(facts.licence_text)}. An edit changes neither the licence of the "
        "base model nor what it asks of its users. The software that made and judged it is listed in `sbom.cdx.json`."
    )
