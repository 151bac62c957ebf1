"""Bearer keys and the models each may use."""

import hmac
from collections.abc import Iterable, Sequence

from bltybench.sandbox.errors import ApiError, no_model
from bltybench.scenario.target import SandboxKey


class KeyRing:
    """The keys and models of a sandbox."""

    def __init__(self, keys: Sequence[SandboxKey], models: Sequence[str]) -> None:
        self._keys = keys
        self._models = models

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> SandboxKey:
        """Return the key of a request. Raise ApiError (401) if it has none or an unknown one."""
        value = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = value.decode("latin-1").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            message = "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'."
            raise ApiError(401, "authentication_error", message, code="invalid_api_key")
        for key in self._keys:
            if hmac.compare_digest(key.key.encode(), token.encode()):
                return key
        masked = "sk-***" if token.startswith("sk-") else "***"
        message = f"Incorrect API key provided: {masked}. The sandbox's public key is in its settings."
        raise ApiError(401, "authentication_error", message, code="invalid_api_key")

    def authorize(self, key: SandboxKey, model: str) -> None:
        """Raise ApiError if the model does not exist (404) or the key may not use it (403)."""
        if model not in self._models:
            raise no_model(model)
        if key.models is not None and model not in key.models:
            message = f"This API key has no access to the model '{model}'."
            raise ApiError(403, "permission_error", message, "model", "model_access_denied")

    def models_for(self, key: SandboxKey) -> list[str]:
        """Return the models that the key may use."""
        return [model for model in self._models if key.models is None or model in key.models]
