"""Reports of findings, for people and for programs."""

import json
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from speciarl.doctor.finding import Finding, Level

_SIGNS = {Level.OK: "[green]ok[/]", Level.WARNING: "[yellow]warning[/]", Level.PROBLEM: "[red]problem[/]"}


def as_table(findings: Iterable[Finding], console: Console) -> None:
    """Print a table, then every remedy on a line of its own, ready to be copied."""
    findings = list(findings)
    table = Table("check", "", "found", title="speciarl doctor", title_justify="left")
    for finding in findings:
        table.add_row(escape(finding.check), _SIGNS[finding.level], escape(finding.detail))
    console.print(table)
    for finding in findings:
        if finding.remedy:
            console.print(f"{_SIGNS[finding.level]} {escape(finding.check)}: {escape(finding.remedy)}", soft_wrap=True)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    console.print("Ready." if not problems else f"{problems} to mend.", f"{warnings} warnings." if warnings else "")


def as_json(findings: Iterable[Finding]) -> str:
    """A JSON object: ``ok`` and the list of ``findings`` with check, level, detail and remedy."""
    findings = list(findings)
    rows = [
        {"check": finding.check, "level": finding.level.value, "detail": finding.detail, "remedy": finding.remedy}
        for finding in findings
    ]
    return json.dumps({"ok": is_healthy(findings), "findings": rows}, indent=2, ensure_ascii=False)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether there is no problem; warnings are allowed."""
    return all(finding.level is not Level.PROBLEM for finding in findings)
