"""What the published description (OpenAPI) says beyond what FastAPI finds in the signatures."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from gaitfleet.problems import Problem


def complete(app: FastAPI) -> None:
    """Describe problem documents and bearer tokens."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = plain()
            components = description.setdefault("components", {})
            components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
            token = {"type": "http", "scheme": "bearer", "description": "Token of a role; see docs/contracts.md."}
            components["securitySchemes"] = {"token": token}
            for path, operations in description["paths"].items():
                for operation in operations.values() if path.startswith("/v1/") else ():
                    operation["security"] = [{"token": []}]
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's documented way
