"""Names of attributes and metrics, in one place because conventions move.

OpenTelemetry's RPC conventions as of 1.44 (release candidate). Its main branch has renamed
`rpc.response.status_code` to `rpc.status_code` since: change STATUS_CODE and SCHEMA_URL together.
"""

from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = "blockyard"

SYSTEM: Final = "rpc.system.name"
METHOD: Final = "rpc.method"
STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"

SERVER_DURATION: Final = "rpc.server.call.duration"
CLIENT_DURATION: Final = "rpc.client.call.duration"
