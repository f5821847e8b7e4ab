"""Is it the network or is it the database? The stages of a connectivity test, as pure functions.

`probe` goes through the stages that all sources have in common, without any vendor's client. Login,
database and permissions are the source's own `test`: `diagnosis` says which stage its error belongs
to and what to do about it, and `with_login` puts both halves together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    DnsResolutionError,
    HostNotAllowedError,
    MatihError,
    MissingExtraError,
    SourcePermissionError,
    SourceTimeoutError,
    TlsHandshakeError,
)
from matih_ray.model.connector import ConnectivityStage, StageState
from matih_ray.sources.host_policy import Address


class StageName(str, Enum):
    """The stages of a connectivity test, in their order."""

    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    DATABASE = "database"
    PERMISSION = "permission"


STAGES = tuple(StageName)
_OF_THE_NETWORK = (StageName.DNS, StageName.TCP)


@dataclass(frozen=True)
class Diagnosis:
    """The stage that an error belongs to, and what a person should do about it."""

    stage: StageName
    remediation: str


@dataclass(frozen=True)
class StagedTest:
    """What a test found: all stages in order, at most one of them failed, with its error.

    `addresses` are those that the host policy allowed; whoever connects next should use them.
    """

    stages: tuple[ConnectivityStage, ...]
    addresses: tuple[Address, ...] = ()
    error: MatihError | None = None
    remediation: str | None = None

    @property
    def success(self) -> bool:
        """No stage failed."""
        return self.error is None

    def stage(self, name: StageName) -> ConnectivityStage:
        """The stage of that name."""
        return self.stages[STAGES.index(name)]


def stage_of(
    name: StageName, state: StageState, latency_ms: float | None = None
) -> ConnectivityStage:
    """A stage with its time rounded to microseconds."""
    rounded = None if latency_ms is None else round(latency_ms, 3)
    return ConnectivityStage(name=name.value, state=state, latency_ms=rounded)


# Where a connector names no host that could be probed: a cloud service behind the vendor's client.
NOT_PROBED = StagedTest(tuple(stage_of(name, StageState.SKIPPED) for name in STAGES))

_DIAGNOSES: dict[str, Diagnosis] = {
    HostNotAllowedError.code: Diagnosis(
        StageName.DNS,
        "Use another host. The operator of this runtime decides which hosts sources may have.",
    ),
    DnsResolutionError.code: Diagnosis(
        StageName.DNS,
        "Check the spelling of the host. A name that only your own network knows must also be "
        "known where this runtime is.",
    ),
    ConnectionRefusedByHostError.code: Diagnosis(
        StageName.TCP,
        "Verify host and port, that the server is running and listens on this address, and that "
        "firewalls let this runtime's addresses pass.",
    ),
    SourceTimeoutError.code: Diagnosis(
        StageName.TCP,
        "Check that firewalls and security groups let this runtime's addresses pass, and that "
        "the server is not overloaded.",
    ),
    TlsHandshakeError.code: Diagnosis(
        StageName.TLS,
        "Check that the server speaks TLS on this port and that its certificate is valid, made "
        "for this host (verify-full) and signed by the given root certificate.",
    ),
    AuthenticationFailedError.code: Diagnosis(
        StageName.AUTHENTICATION,
        "Check user and password (or token), that the account is not locked or expired, and that "
        "the server lets it log in from this runtime's addresses.",
    ),
    DatabaseNotFoundError.code: Diagnosis(
        StageName.DATABASE,
        "Check the database's name, including upper and lower case, on this server.",
    ),
    SourcePermissionError.code: Diagnosis(
        StageName.PERMISSION,
        "Let the source's administrator grant this account the right to connect, and to list and "
        "read what should be loaded.",
    ),
    MissingExtraError.code: Diagnosis(
        StageName.AUTHENTICATION,
        "Let the operator of this runtime install the driver that the message names.",
    ),
}
# What has no stage of its own came from the server after it could be reached.
_OTHERWISE = Diagnosis(
    StageName.AUTHENTICATION,
    "The server was reached and did not accept the session; its message says why.",
)

_NAME = "Connect by a name that the certificate has, or let the server show one for this host."
_ISSUER = (
    "Give the root certificate that signed the server's certificate; the server must send the "
    "intermediate ones itself."
)
# X509_V_ERR_… of OpenSSL's x509_vfy.h, in the context of a `TlsHandshakeError` as `verify_code`.
_CERTIFICATE_REMEDIES: dict[object, str] = {
    9: "The certificate is not valid yet; check the clocks of the server and of this runtime.",
    10: "The certificate has expired; let the server's administrator renew it.",
    18: _ISSUER,  # self-signed
    19: _ISSUER,  # self-signed in the chain
    20: _ISSUER,  # issuer not found
    21: _ISSUER,  # the first one cannot be verified
    62: _NAME,
    64: _NAME,  # for an address
}


def diagnosis(error: MatihError) -> Diagnosis:
    """The stage that failed and the remedy, for any error of a probe or of a source's `test`."""
    found = _DIAGNOSES.get(error.code, _OTHERWISE)
    remedy = _CERTIFICATE_REMEDIES.get(error.context.get("verify_code"))
    return found if remedy is None else replace(found, remediation=remedy)


def with_login(
    probed: StagedTest, *, latency_ms: float, tls: bool, error: MatihError | None = None
) -> StagedTest:
    """A probe followed by the source's own `test`, which took `latency_ms` and may have failed.

    `tls` says whether the source encrypts its connection: a TLS stage that was not probed has
    passed, then, once the login has got further. After a successful probe a timeout or refusal is
    one of the login, since the network is known to be good.
    """
    if probed.error is not None:
        return probed
    found = None if error is None else diagnosis(error)
    if (
        found is not None
        and found.stage in _OF_THE_NETWORK
        and probed.stage(found.stage).state is StageState.PASSED
    ):
        found = replace(found, stage=StageName.AUTHENTICATION)
    failed = len(STAGES) if found is None else STAGES.index(found.stage)
    stages = []
    for position, name in enumerate(STAGES):
        if position < failed:
            stages.append(_got_past(probed.stage(name), name, latency_ms, tls=tls))
        elif position == failed:
            stages.append(stage_of(name, StageState.FAILED, latency_ms))
        else:
            stages.append(stage_of(name, StageState.SKIPPED))
    remedy = None if found is None else found.remediation
    return replace(probed, stages=tuple(stages), error=error, remediation=remedy)


def _got_past(
    before: ConnectivityStage, name: StageName, latency_ms: float, *, tls: bool
) -> ConnectivityStage:
    """A stage that the login got past; what was neither probed nor is the login's stays skipped."""
    unknown = name in _OF_THE_NETWORK or (name is StageName.TLS and not tls)
    if before.state is not StageState.SKIPPED or unknown:
        return before
    # one round trip answers for all of these: its time stands at the login
    own = latency_ms if name is StageName.AUTHENTICATION else None
    return stage_of(name, StageState.PASSED, own)
