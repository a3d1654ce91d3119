"""What a PromQL expression reads, found by walking its syntax tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import promql_parser as promql

VARIABLES = {"$__rate_interval": "1m", "$__interval": "1m", "$namespace": ".*", "$run": ".*"}
"""What stands for Grafana's variables."""

OF_COUNTERS = {"rate", "increase", "changes", "resets"}


@dataclass(frozen=True)
class Selector:
    """One place where an expression reads a metric.

    Parameters
    ----------
    function
        The function around a range of it; empty for an instant.
    matchers
        Label and pattern of every matcher.
    """

    metric: str
    function: str
    matchers: tuple[tuple[str, str], ...]


def substituted(expression: str, **values: str) -> str:
    """The expression with Grafana's variables replaced."""
    for name, value in (VARIABLES | {f"${key}": value for key, value in values.items()}).items():
        expression = expression.replace(name, value)
    return expression


def selectors(expression: str) -> list[Selector]:
    """Every selector of an expression. ValueError when it cannot be parsed."""
    return list(_walk(promql.parse(expression), ""))


def metrics(expression: str) -> set[str]:
    """Names of the metrics in an expression."""
    return {selector.metric for selector in selectors(expression)}


def _walk(node: promql.Expr, function: str) -> Iterator[Selector]:
    match node:
        case promql.VectorSelector():
            matchers = tuple((matcher.name, matcher.value) for matcher in node.matchers.matchers)
            yield Selector(node.name or "", function, matchers)
        case promql.MatrixSelector():
            yield from _walk(node.vector_selector, function)
        case promql.Call():
            for argument in node.args:
                inner = node.func.name if isinstance(argument, promql.MatrixSelector | promql.SubqueryExpr) else ""
                yield from _walk(argument, inner)
        case promql.BinaryExpr():
            yield from _walk(node.lhs, "")
            yield from _walk(node.rhs, "")
        case promql.AggregateExpr() | promql.ParenExpr() | promql.UnaryExpr():
            yield from _walk(node.expr, "")
        case promql.SubqueryExpr():
            yield from _walk(node.expr, function)
        case promql.NumberLiteral() | promql.StringLiteral():
            return
        case _:
            raise TypeError(f"unknown node {type(node).__name__}")
