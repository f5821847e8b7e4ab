"""The credential contract, on encrypted files."""

import pytest

from matih_ray.state.credentials import open_credentials
from matih_ray.testing.contracts.state import CredentialContract


class TestEncryptedFiles(CredentialContract):
    @pytest.fixture
    def credentials(self, tmp_path):
        return open_credentials(tmp_path, None)
