"""A server's own OpenAPI file, to which its answers are held."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import jsonschema_rs


class Contract:
    """What an OpenAPI 3.1 file promises of each path, method and status."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """Find what is said of a path; names in braces stand for anything, {id:path} for slashes too."""
        for template, operations in self.document["paths"].items():
            pattern = re.sub(r"\\{[^}]*\\}", ".+", re.escape(template))
            if method in operations and re.fullmatch(pattern, path):
                found: dict[str, Any] = operations[method]
                return found
        return None

    def problem(self, response: httpx2.Response) -> str | None:
        """Say in what an answer does not keep to the file; None where it does."""
        request, status = response.request, response.status_code
        operation = self.operation(request.method.lower(), request.url.path)
        if operation is None:
            return "the file does not name this path"
        said = operation["responses"].get(str(status)) or operation["responses"].get("default")
        if said is None:
            return f"the file does not name the status {status}"
        kind = response.headers.get("content-type", "").partition(";")[0]
        if kind not in said.get("content", {}):
            return f"the file does not name the content-type {kind}"
        if kind != "application/json":
            return None
        rules = {**said["content"][kind].get("schema", {}), "components": self.document.get("components", {})}
        try:
            jsonschema_rs.Draft202012Validator(rules).validate(json.loads(response.content))
        except jsonschema_rs.ValidationError as problem:
            return f"{problem.message} at {problem.instance_path}"
        return None
