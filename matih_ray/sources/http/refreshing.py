"""OAuth 2.0 refresh tokens (RFC 6749 §6): access tokens that all tasks of a connector share.

Providers replace the refresh token with each use and refuse the one before. So one task at a time
renews, stores what it got before anybody uses it, and the others take it from there. Tokens travel
through the store of credentials alone; what goes between processes is whose turn it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx

from matih_ray.errors import AuthenticationFailedError, SourceTimeoutError, ValidationError
from matih_ray.sources.http.auth import granted, usable_s
from matih_ray.sources.provider_services import SecretKeeper, Turns

REFRESH_TOKEN, ACCESS_TOKEN, EXPIRES_AT = "refreshToken", "accessToken", "accessTokenExpiresAt"
# Somebody else's renewal is waited for so long; it is one small request.
WAIT_FOR_TURN_S = 90.0
POLL_S = 0.1


class RefreshedTokens:
    """An `Authorization` with a bearer token that is renewed in time.

    Args:
        name: Whose tokens they are: the connector.
        token_url: Where tokens are given.
        form: What is sent besides the refresh token: `client_id`, `client_secret`, `scope`.
        keeper: Where the secrets are, `refreshToken` among them.
        turns: Lets one at a time renew.
        transport: For asking.
        timeout_s: Of one request.
        clock: Seconds since 1970, of this machine.
    """

    def __init__(
        self,
        name: str,
        token_url: str,
        form: Mapping[str, str],
        keeper: SecretKeeper,
        turns: Turns,
        transport: httpx.BaseTransport,
        timeout_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._url, self._form = name, token_url, dict(form)
        self._keeper, self._turns = keeper, turns
        self._transport, self._timeout_s, self._clock = transport, timeout_s, clock
        self._token: str | None = None
        self._expires_at = 0.0
        self._refused: str | None = None

    def __repr__(self) -> str:
        return f"RefreshedTokens({self._name!r})"

    def headers(self) -> Mapping[str, str]:
        """The token as a header, renewed if need be.

        Raises:
            AuthenticationFailedError: The refresh token is not accepted.
            SourceError: The authorization server cannot be reached.
        """
        if self._token is None or self._clock() >= self._expires_at:
            self._obtain()
        return {"Authorization": f"Bearer {self._token}"}

    def params(self) -> Mapping[str, str]:
        """None."""
        return {}

    def forget(self) -> bool:
        """The API refused the token: renew it, unless somebody has done so."""
        had, self._refused, self._token = self._token is not None, self._token, None
        return had

    def _obtain(self) -> None:
        deadline = time.monotonic() + WAIT_FOR_TURN_S
        while not self._taken():
            if self._turns.begin(self._name):
                try:
                    # between looking and beginning, somebody may have ended
                    if not self._taken():
                        self._renew()
                finally:
                    self._turns.end(self._name)
                return
            if time.monotonic() > deadline:
                raise SourceTimeoutError(
                    f"the token of {self._name} is being renewed for {WAIT_FOR_TURN_S:g} s already"
                )
            time.sleep(POLL_S)

    def _taken(self) -> bool:
        """Take the stored token if it is of use."""
        secrets = self._keeper.read()
        token, expires_at = secrets.get(ACCESS_TOKEN), float(secrets.get(EXPIRES_AT) or 0)
        if token is None or token == self._refused or self._clock() >= expires_at:
            return False
        self._token, self._expires_at = token, expires_at
        return True

    def _renew(self) -> None:
        secrets = dict(self._keeper.read())
        refresh = secrets.get(REFRESH_TOKEN)
        if not refresh:
            raise ValidationError(
                f"the secret {REFRESH_TOKEN} is missing", field=f"secrets.{REFRESH_TOKEN}"
            )
        form = {**self._form, "grant_type": "refresh_token", "refresh_token": refresh}
        try:
            grant = granted(self._transport, self._url, form, self._timeout_s)
        except AuthenticationFailedError as error:
            raise AuthenticationFailedError(
                f"{error.message}; authorize the connector anew", **error.context
            ) from None
        expires_at = self._clock() + usable_s(grant.lifetime_s)
        secrets[ACCESS_TOKEN] = grant.access_token
        secrets[EXPIRES_AT] = str(expires_at)
        secrets[REFRESH_TOKEN] = grant.refresh_token or refresh
        self._keeper.write(secrets)
        self._token, self._expires_at = grant.access_token, expires_at
