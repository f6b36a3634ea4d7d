"""List routes of the paper's wire format: which names clients may send, and how a request is made."""

from typing import Any

from fastapi import APIRouter
from pydantic.fields import FieldInfo

from speciarl.verifier_server.service.compatible.schemas import ModelsResponse, PromptsResponse, SchemaResponse
from speciarl.verifier_server.service.config import ANY
from speciarl.verifier_server.service.errors import responses
from speciarl.verifier_server.service.requests import StrictRoute
from speciarl.verifier_server.service.schemas import ClassifyRequest
from speciarl.verifier_server.service.service import Core

STANDARD, BINARY = "/api/v1/classify/standard", "/api/v1/classify/binary"


def router(core: Core) -> APIRouter:
    """Router of the lists of one service."""
    routes = APIRouter(prefix="/api/v1", tags=["compatible"], route_class=StrictRoute, responses=responses("internal"))
    settings = core.settings

    @routes.get("/models", summary="Model names, as in the paper's release")
    async def models() -> ModelsResponse:
        """Names under `judges`, and the models of the aliases."""
        named = (model for alias in settings.aliases for model, _, _ in alias.names)
        known = dict.fromkeys([*settings.judges, *filter(None, named)])
        return ModelsResponse(available_models=list(known), default_model=settings.judge)

    @routes.get("/prompts", summary="Prompt names, as in the paper's release")
    async def prompts() -> PromptsResponse:
        """The prompts of the aliases."""
        named = (prompt for alias in settings.aliases for _, prompt, _ in alias.names)
        known = dict.fromkeys(prompt for prompt in named if prompt not in (None, ANY))
        judge = settings.judges[settings.judge]
        default = None if judge.kind == "taxonomy" else judge.prompt
        return PromptsResponse(available_prompts=[str(name) for name in known], default_prompt=default)

    @routes.get("/schema", summary="How a request is made, as in the paper's release")
    async def schema() -> SchemaResponse:
        """Fields of a request that judges, and an example for each route."""
        fields = ClassifyRequest.model_fields
        body = {name: field.examples[0] for name, field in fields.items() if field.examples}
        return SchemaResponse(
            endpoints=[f"POST {STANDARD}", f"POST {BINARY}"],
            required_fields={name: _described(field) for name, field in fields.items() if field.is_required()},
            optional_fields={name: _described(field) for name, field in fields.items() if not field.is_required()},
            examples={
                "standard": {"endpoint": f"POST {STANDARD}", "body": body},
                "binary": {"endpoint": f"POST {BINARY}", "body": body},
            },
        )

    return routes


def _described(field: FieldInfo) -> dict[str, Any]:
    kind = "array of strings" if field.is_required() else "string" if field.annotation != Any else "any"
    example = {"example": field.examples[0]} if field.examples else {}
    return {"type": kind, "description": field.description, **example}
