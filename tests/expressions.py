"""PromQL expressions of deploy/, and what each asks for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml
from deployed import DEPLOY


@dataclass(frozen=True)
class Wanted:
    """A metric, and the labels that an expression looks at."""

    metric: str
    labels: frozenset[str]


def alerts() -> dict[str, str]:
    """Alert → expression."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def panels() -> dict[str, str]:
    """Panel and target → expression."""
    board = json.loads((DEPLOY / "grafana" / "pacs-cbir.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel["targets"]
    }


def wanted(expression: str) -> list[Wanted]:
    """The metrics that an expression names, each with the labels of its matchers and of its groups."""
    return list(_wanted(promql_parser.parse(expression), frozenset()))


def _wanted(node: Any, grouped: frozenset[str]) -> Iterator[Wanted]:
    if isinstance(node, promql_parser.AggregateExpr):
        labels = frozenset(node.modifier.labels) if node.modifier else frozenset()
        yield from _wanted(node.expr, grouped | labels)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _wanted(node.lhs, grouped)
        yield from _wanted(node.rhs, grouped)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _wanted(argument, grouped)
    elif isinstance(node, promql_parser.ParenExpr):
        yield from _wanted(node.expr, grouped)
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from _wanted(node.vector_selector, grouped)
    elif isinstance(node, promql_parser.VectorSelector):
        yield Wanted(node.name, grouped | {matcher.name for matcher in node.matchers.matchers})
    else:
        assert isinstance(node, promql_parser.NumberLiteral), f"not looked into: {type(node)}"
