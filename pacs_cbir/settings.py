"""One frozen Settings, read from the environment (PACS_CBIR_…) and a TOML file, and passed in; never a global."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings import SettingsError as UnreadableSource

from pacs_cbir.errors import SettingsError
from pacs_cbir.peers import AETitle, Peer, Port, web_url

SETTINGS_FILE_VARIABLE = "PACS_CBIR_SETTINGS_FILE"
REPORT_FIELDS = ("StudyInstanceUID", "AccessionNumber")
VIEWER_FIELDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


def _url_with(names: tuple[str, ...]) -> Callable[[str], str]:
    """A check of URL templates that name at least one of these."""

    def check(template: str) -> str:
        try:
            template.format(**dict.fromkeys(names, ""))
        except (AttributeError, IndexError, KeyError, ValueError):
            known = False
        else:
            known = "{" in template.replace("{{", "")
        if not (known and template.startswith(("http://", "https://"))):
            fields = " or ".join(f"{{{name}}}" for name in names)
            raise ValueError(f"an http:// or https:// URL with {fields} in it, and no other name in braces")
        return template

    return check


def _each_its_own_title(peers: dict[str, Peer]) -> dict[str, Peer]:
    titles = Counter(peer.ae_title for peer in peers.values())
    if twice := sorted(title for title, count in titles.items() if count > 1):
        raise ValueError(
            f"two peers have one AE title, {', '.join(twice)}: keep one entry for each PACS, and change its `retrieve` "
            "to fetch from it in another way"
        )
    return peers


def _asked(host: str) -> str:
    """What listens on all addresses is asked on the loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here


def _default_data_dir() -> Path:
    # The embedded Postgres makes the parents of its data traversable for others, which root's home must never be.
    if os.geteuid() == 0:
        return Path("/var/lib/pacs-cbir")
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "pacs-cbir"


class Settings(BaseSettings):
    """Everything that an installation can set. Times are in seconds, sizes in the unit of the name."""

    model_config = SettingsConfigDict(env_prefix="PACS_CBIR_", frozen=True, extra="forbid", env_ignore_empty=True)

    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Where instances, index snapshots and the embedded Postgres live.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="postgresql://… of the services; without it an embedded Postgres runs below the data directory.",
    )
    database_owner_url: SecretStr | None = Field(
        default=None,
        description="postgresql://… of the schema's owner, for `pacs-cbir db upgrade`; defaults to the database URL.",
    )
    ae_title: AETitle = Field(default="PACS_CBIR", description="The AE title that a PACS must call.")
    dicom_host: str = Field(default="127.0.0.1", description="Address on which the SCP listens.")
    dicom_port: Port = Field(default=11112, description="TCP port on which the SCP listens.")
    calling_ae_titles: tuple[AETitle, ...] = Field(
        default=(), description="Calling AE titles that may associate; an empty list lets everyone."
    )
    default_issuers: dict[AETitle, str] = Field(
        default_factory=dict,
        description="Calling AE title → IssuerOfPatientID for instances that carry none.",
    )
    peers: Annotated[dict[str, Peer], AfterValidator(_each_its_own_title)] = Field(
        default_factory=dict,
        description="Name → a PACS that studies are fetched from: its AE title, where it is, and by which protocol.",
    )
    maximum_associations: int = Field(default=32, ge=1, description="Associations that the SCP serves at once.")
    http_host: str = Field(default="127.0.0.1", description="Address on which the API listens.")
    http_port: Port = Field(default=8000, description="TCP port on which the API listens.")
    hl7_host: str = Field(default="127.0.0.1", description="Address on which HL7 messages are listened for.")
    hl7_port: Port | None = Field(
        default=None, description="TCP port of HL7 ADT messages over MLLP; without it nobody listens for any."
    )
    hl7_issuers: dict[str, str] = Field(
        default_factory=dict,
        description="Assigning authority in HL7 → IssuerOfPatientID as instances have it; others keep their names.",
    )
    scp_metrics_port: Port | None = Field(
        default=None,
        description="TCP port, on the API's address, of what Prometheus reads of the SCP; without it nothing is read.",
    )
    api_url: Annotated[str, AfterValidator(web_url)] | None = Field(
        default=None,
        description="Where the SCP asks for queries by example; without it the API of this machine, by its settings.",
    )
    disk_reserve_megabytes: int = Field(
        default=1024, ge=0, description="MiB of the data directory's disk that stay free: below it nothing is received."
    )
    retention: Literal["all", "cache", "none"] = Field(
        default="all",
        description="How long pixel data stays: all of it, a cache, or none once it is embedded (after an hour).",
    )
    storage_commitment: bool = Field(
        default=False,
        description="Whether senders may ask this service to commit itself, so that they may delete their copies.",
    )
    cache_gigabytes: float = Field(
        default=100.0, gt=0, description="GiB of instances that stay with the retention cache; least recently used go."
    )
    settle_seconds: float = Field(
        default=30.0, ge=0, description="A series is embedded once no instance has arrived for this long."
    )
    worker_processes: int = Field(default=1, ge=1, description="Worker processes that `pacs-cbir serve` runs.")
    lease_seconds: float = Field(
        default=60.0, ge=1, description="A job whose worker has been silent for this long is given to another."
    )
    job_attempts: int = Field(default=3, ge=1, description="Attempts before a job is parked with its error.")
    retry_seconds: float = Field(
        default=10.0, ge=0, description="Wait before the second attempt; doubled for each further one."
    )
    decode_seconds: float = Field(default=300.0, gt=0, description="Time that decoding one series may take.")
    decode_megabytes: int = Field(default=8192, ge=512, description="Address space of the decoding process in MiB.")
    upload_megabytes: int = Field(
        default=256, ge=1, description="Most MiB of pictures that a query by example may bring along."
    )
    sequence_rules: Path | None = Field(
        default=None,
        description="TOML file of the site's rules of which headers are which MR sequence; read when a process starts.",
    )
    report_url: Annotated[str, AfterValidator(_url_with(REPORT_FIELDS))] | None = Field(
        default=None,
        description="Template of reports' URLs, with {StudyInstanceUID} or {AccessionNumber}; without it no links.",
    )
    viewer_url: Annotated[str, AfterValidator(_url_with(VIEWER_FIELDS))] = Field(
        default="http://localhost:3000/viewer?StudyInstanceUIDs={StudyInstanceUID}"
        "&initialSeriesInstanceUID={SeriesInstanceUID}&initialSOPInstanceUID={SOPInstanceUID}",
        description="Template of the page's links into a viewer, with {StudyInstanceUID}, {SeriesInstanceUID} and "
        "{SOPInstanceUID}; OHIF's by default.",
    )
    show_identity: bool = Field(
        default=False,
        description="Whether the page, and it alone, shows and searches names, patient IDs and accession numbers.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file; no dotenv, no secrets directory."""
        file = os.environ.get(SETTINGS_FILE_VARIABLE)
        if not file:
            return (init_settings, env_settings)
        try:
            Path(file).open("rb").close()
        except OSError as error:
            raise SettingsError(
                f"{SETTINGS_FILE_VARIABLE} names {file}, which cannot be read: {error.strerror}"
            ) from error
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(file)))

    @property
    def asked_api(self) -> str:
        """The API's URL for the SCP, without a slash at its end."""
        return self.own_api if self.api_url is None else self.api_url

    @property
    def own_api(self) -> str:
        """The URL of this machine's API, without a slash at its end."""
        host = _asked(self.http_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.http_port}"

    @property
    def own_scp(self) -> tuple[str, int]:
        """Host and port at which this machine's SCP is asked."""
        return _asked(self.dicom_host), self.dicom_port

    def peer_by_ae_title(self, ae_title: str) -> Peer | None:
        """The peer that has this AE title; None where none has."""
        return next((peer for peer in self.peers.values() if peer.ae_title == ae_title), None)

    @property
    def instances_dir(self) -> Path:
        """Received instances, one file each."""
        return self.data_dir / "instances"

    @property
    def incoming_dir(self) -> Path:
        """Transfers under way, on the same file system as the instances, so that a rename moves them."""
        return self.data_dir / "incoming"

    @property
    def uploads_dir(self) -> Path:
        """Pictures that came with questions, while these are answered."""
        return self.data_dir / "uploads"

    @property
    def orphans_dir(self) -> Path:
        """Whole files that were found without rows: never acknowledged, kept for the admin to look at."""
        return self.data_dir / "orphans"

    @property
    def index_dir(self) -> Path:
        """Snapshots of the vector index; a cache."""
        return self.data_dir / "index"

    @property
    def encoders_dir(self) -> Path:
        """Checkpoints of the encoders that were added."""
        return self.data_dir / "encoders"

    @property
    def postgres_dir(self) -> Path:
        """The embedded Postgres' data directory."""
        return self.data_dir / "postgres"


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment and the TOML file that PACS_CBIR_SETTINGS_FILE names.

    Args:
        overrides: values that win over both.

    Raises:
        SettingsError: a value does not fit; the message names the setting, never a secret's value.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates
    except ValidationError as error:
        problems = "; ".join(
            f"{'PACS_CBIR_' + '.'.join(str(part) for part in problem['loc']).upper()}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_input=False)
        )
        raise SettingsError(f"{problems}. `pacs-cbir settings` lists every setting.") from None
    except UnreadableSource as error:
        raise SettingsError(f"{error}; in the environment, lists and tables are JSON.") from None
    except ValueError as error:
        raise SettingsError(f"{SETTINGS_FILE_VARIABLE}: {error}") from None
