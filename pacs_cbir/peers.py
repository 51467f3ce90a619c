"""Other systems that this one calls: where they are, and how studies are fetched from them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from pacs_cbir.errors import PeerError

AETitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
]
Port = Annotated[int, Field(ge=1, le=65535)]


def web_url(url: str) -> str:
    """A check of URLs that others are appended to; without the slash at its end.

    Raises:
        ValueError: it is none, or holds a query or a user's name.
    """
    if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", url):
        raise ValueError("an http:// or https:// URL without a query and without a user's name")
    return url.rstrip("/")


class Peer(BaseModel):
    """One system, mostly a PACS.

    Attributes:
        ae_title: its AE title; what is fetched by C-GET or DICOMweb is recorded as sent by it.
        host, port: where it takes associations.
        retrieve: how studies are found and fetched: C-FIND and C-MOVE, C-FIND and C-GET, or QIDO-RS and WADO-RS.
        dicomweb_url: where its DICOMweb services start, without a slash at the end.
        dicomweb_user, dicomweb_password: for HTTP's basic authentication; both or none.
        find_limit: most answers that it gives to one query, where it does not say when it leaves some out.
        timeout_seconds: silence after which it counts as gone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ae_title: AETitle
    host: str | None = None
    port: Port | None = None
    retrieve: Literal["c-move", "c-get", "dicomweb"] = "c-move"
    dicomweb_url: Annotated[str, AfterValidator(web_url)] | None = None
    dicomweb_user: str | None = None
    dicomweb_password: SecretStr | None = None
    find_limit: Annotated[int, Field(ge=2)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 300.0

    @model_validator(mode="after")
    def _can_be_reached(self) -> Peer:
        if (self.host is None) != (self.port is None):
            raise ValueError("host and port: both, or none")
        if (self.dicomweb_user is None) != (self.dicomweb_password is None):
            raise ValueError("dicomweb_user and dicomweb_password: both, or none")
        if self.retrieve == "dicomweb" and self.dicomweb_url is None:
            raise ValueError('retrieve = "dicomweb" needs dicomweb_url')
        if self.retrieve != "dicomweb" and self.host is None:
            raise ValueError(f'retrieve = "{self.retrieve}" needs host and port')
        return self

    @property
    def address(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            PeerError: it has none; says where to set them.
        """
        if self.host is None or self.port is None:
            raise PeerError(f"{self.ae_title} has no host and port in PACS_CBIR_PEERS")
        return self.host, self.port

    def __str__(self) -> str:
        """Every value that is set, passwords hidden."""
        return " ".join(f"{name}={value}" for name, value in self if value is not None)
