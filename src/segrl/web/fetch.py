"""Images by address, from one host alone: the Label Studio that the server was told of."""

from __future__ import annotations

import httpx

from segrl.web.errors import Refused, invalid
from segrl.web.images import from_base64
from segrl.web.settings import Limits


class ImageSource:
    """Fetches images from `base_url` with its access token; None fetches nothing.

    Redirects are not followed, so no other host is ever asked.
    """

    def __init__(self, base_url: str | None, key: str | None, limits: Limits) -> None:
        self._base = None if base_url is None else httpx.URL(base_url.rstrip("/") + "/")
        self._limits = limits
        self._headers = {"Authorization": f"Token {key}"} if key else {}

    async def get(self, address: str) -> bytes:
        """The bytes of an image: of a `data:` address, of a path on the host, or of an address on it.

        Raises Refused: 422 for every other address and for what the host does not give, 413 for too many bytes.
        """
        if address.startswith("data:"):
            return from_base64(address)
        try:
            url = self._allowed(address)
            async with (
                httpx.AsyncClient(headers=self._headers, timeout=self._limits.seconds, trust_env=False) as client,
                client.stream("GET", url) as response,
            ):
                if response.status_code != 200:
                    raise invalid(f"tasks: Label Studio answers {response.status_code} when asked for the image")
                return await self._read(response)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise invalid("tasks: Label Studio does not give the image") from error

    def _allowed(self, address: str) -> httpx.URL:
        if self._base is None:
            raise invalid("tasks: this server fetches no images; start it with --label-studio-url")
        url = self._base.join(address)
        if _origin(url) != _origin(self._base):
            raise invalid(
                "tasks: images come from the Label Studio that this server was told of, and from nowhere else"
            )
        return url

    async def _read(self, response: httpx.Response) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > self._limits.max_bytes:
                raise Refused(413, "body_too_large", f"the image is larger than {self._limits.max_bytes} bytes")
        return bytes(data)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
