"""What a client is told when its request cannot be answered, in the form of OpenAI's API."""

from __future__ import annotations

from typing import Any

from ree.errors import ReeError

# status -> (type, code) where a refusal has none of its own
_KINDS = {
    400: ("invalid_request_error", None),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "other_site"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    413: ("invalid_request_error", "request_too_large"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("server_error", "unavailable"),
}


class ApiError(ReeError):
    """A request refused: `status` is HTTP's, `param` the field that is wrong, if it is one."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        status: int = 400,
        code: str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint)
        self.status, self.param, self.code = status, param, code

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.message, self.param, self.status, self.code, self.hint)

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind, code = _KINDS.get(self.status, _KINDS[500 if self.status >= 500 else 400])
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return {
            "error": {"message": text, "type": kind, "param": self.param, "code": self.code or code}
        }

    @classmethod
    def of(cls, e: ReeError, param: str | None = None) -> ApiError:
        """An error that a request caused, as a refusal of it."""
        return e if isinstance(e, cls) else cls(e.message, param, hint=e.hint)


def _again(message: str, param: str | None, status: int, code: str | None, hint: str) -> ApiError:
    return ApiError(message, param, status=status, code=code, hint=hint)
