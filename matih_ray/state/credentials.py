"""Credentials in encrypted files: the default where there is no Kubernetes.

`<directory>/<tenant>/<name>` holds one Fernet token (AES-128-CBC with HMAC-SHA256, see the
cryptography package). Tenant and name are inside the token too and are compared on reading, so a
file copied to another tenant's directory is refused. Keys are a list, newest first: the first one
encrypts, all of them decrypt. To change the key, put a new one in front and call `rotate`; then the
old one can go.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from matih_ray.errors import ConfigurationError, NotFoundError, StateError, ValidationError
from matih_ray.model.ids import TenantId
from matih_ray.state.files import exclusive, replace_file, sync_directory, write_new_file
from matih_ray.state.names import checked_name

# The limit of a Kubernetes Secret, so that credentials can move there.
MAX_CREDENTIAL_BYTES = 1024 * 1024
# The limit of file names on Linux.
MAX_FILE_NAME_BYTES = 255


class EncryptedFileCredentials:
    """A `CredentialStore` in a directory; safe for threads and processes of one machine."""

    def __init__(self, directory: Path, keys: Sequence[SecretStr]) -> None:
        self._directory = directory.resolve()
        self._lock_file = self._directory / ".lock"
        self._fernet = _fernet(keys)
        self._key_count = len(keys)

    def __repr__(self) -> str:
        return f"EncryptedFileCredentials({str(self._directory)!r})"

    def put(
        self,
        tenant_id: TenantId,
        name: str,
        secrets: Mapping[str, str],
        labels: Mapping[str, str] | None = None,  # noqa: ARG002 - files have no place for them
    ) -> None:
        """Store secrets under a name, in place of earlier ones."""
        path = self._path(tenant_id, name)
        token = self._fernet.encrypt(_document(tenant_id, name, secrets))
        self._make_directory(path.parent)
        with exclusive(self._lock_file):
            self._write(path, token)

    def get(self, tenant_id: TenantId, name: str) -> dict[str, str]:
        """The secrets. Raises `NotFoundError`, `ConfigurationError` when no key fits."""
        path = self._path(tenant_id, name)
        try:
            token = path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"no credentials named {name!r}", name=name) from None
        except OSError as error:
            raise StateError(f"cannot read {path}: {error.strerror}", path=str(path)) from None
        try:
            document = json.loads(self._fernet.decrypt(token))
            owner = (document["tenant"], document["name"])
            secrets: dict[str, str] = document["secrets"]
        except (InvalidToken, ValueError, TypeError, KeyError):
            raise self._wrong_key(path) from None
        if owner != (tenant_id, name):
            raise ConfigurationError(
                f"{path} holds the credentials of another tenant or name; it was moved there, "
                "store the right ones again",
                path=str(path),
            )
        return secrets

    def delete(self, tenant_id: TenantId, name: str) -> bool:
        """Remove credentials; tells whether there were any."""
        path = self._path(tenant_id, name)
        if not path.exists():
            return False
        with exclusive(self._lock_file):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            sync_directory(path.parent)
        return True

    def rotate(self) -> int:
        """Encrypt everything anew with the first key; returns the number of credentials.

        Raises:
            ConfigurationError: One of them fits no key. Nothing was changed then.
        """
        if not self._directory.exists():
            return 0
        with exclusive(self._lock_file):
            rotated: dict[Path, bytes] = {}
            for path in self._files():
                try:
                    rotated[path] = self._fernet.rotate(path.read_bytes())
                except InvalidToken:
                    raise self._wrong_key(path) from None
            for path, token in rotated.items():
                self._write(path, token)
        return len(rotated)

    def _files(self) -> Iterator[Path]:
        for path in sorted(self._directory.glob("*/*")):
            # names of ours never start with a dot: that is a write which was cut short
            if path.is_file() and not path.name.startswith("."):
                yield path

    def _write(self, path: Path, token: bytes) -> None:
        try:
            replace_file(path, token, durable_name=True)
        except OSError as error:
            raise StateError(
                f"cannot write {path}: {error.strerror}; it still has its old content",
                path=str(path),
            ) from None

    def _make_directory(self, directory: Path) -> None:
        try:
            for parent in (self._directory, directory):
                parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StateError(
                f"cannot create {directory}: {error.strerror}", path=str(directory)
            ) from None

    def _path(self, tenant_id: TenantId, name: str) -> Path:
        return self._directory / _file_name(tenant_id) / _file_name(name)

    def _wrong_key(self, path: Path) -> ConfigurationError:
        return ConfigurationError(
            f"{path} was encrypted with another key than the {self._key_count} given, or is "
            "damaged; add the key that encrypted it to MATIH_CREDENTIAL_KEY (or to the key file), "
            "after the newest one, or store these credentials again",
            path=str(path),
        )


def open_credentials(home: Path, keys: SecretStr | None) -> EncryptedFileCredentials:
    """The credentials under `home`, with the given comma-separated keys or those of the key file.

    Without keys, `credentials.key` under `home` is read, and made on the first start.

    Raises:
        ConfigurationError: A key is malformed, or the key file is gone while credentials exist.
    """
    directory = home / "credentials"
    if keys is not None:
        return EncryptedFileCredentials(directory, _split(keys.get_secret_value()))
    return EncryptedFileCredentials(directory, _key_file(home / "credentials.key", directory))


def _key_file(path: Path, directory: Path) -> list[SecretStr]:
    try:
        if not path.exists():
            _make_key_file(path, directory)
        return _split(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot use the key file {path}: {type(error).__name__}; check its permissions or set "
            "MATIH_CREDENTIAL_KEY",
            path=str(path),
        ) from None


def _make_key_file(path: Path, directory: Path) -> None:
    """Create the key file whole and only once, whoever else is starting at the same time."""
    if any(directory.glob("*/[!.]*")):
        raise ConfigurationError(
            f"the key file {path} is gone, but {directory} holds credentials encrypted with it; "
            "restore the file or set MATIH_CREDENTIAL_KEY",
            path=str(path),
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    write_new_file(draft, Fernet.generate_key() + b"\n")
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    finally:
        draft.unlink()
    sync_directory(path.parent)


def _split(text: str) -> list[SecretStr]:
    return [SecretStr(key) for key in text.replace(",", "\n").split()]


def _fernet(keys: Sequence[SecretStr]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key.get_secret_value()) for key in keys])
    except ValueError:
        raise ConfigurationError(
            "MATIH_CREDENTIAL_KEY (or the key file) must hold one or more Fernet keys, newest "
            "first, each 32 bytes in URL-safe base64; make one with "
            "`python -c 'from cryptography.fernet import Fernet as f; "
            "print(f.generate_key().decode())'`",
            setting="credential_key",
        ) from None


def _document(tenant_id: TenantId, name: str, secrets: Mapping[str, str]) -> bytes:
    if not all(isinstance(item, str) for pair in secrets.items() for item in pair):
        raise ValidationError("credentials are texts by name; encode other values as text")
    document = {"tenant": tenant_id, "name": name, "secrets": dict(secrets)}
    data = json.dumps(document).encode()
    if len(data) > MAX_CREDENTIAL_BYTES:
        raise ValidationError(
            f"credentials of {len(data)} bytes are too large; at most {MAX_CREDENTIAL_BYTES} are "
            "allowed",
            bytes=len(data),
        )
    return data


def _file_name(value: str) -> str:
    """A file name that stands for this identifier and no other, and cannot leave its directory."""
    name = quote(checked_name(value), safe=" @=+,")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > MAX_FILE_NAME_BYTES:
        raise ValidationError(
            f"an identifier is too long for a file name; at most {MAX_FILE_NAME_BYTES} bytes",
            bytes=len(name),
        )
    return name
