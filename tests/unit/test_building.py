"""Which hosts a connector's configuration names: each of them is checked before it is used."""

from __future__ import annotations

import pytest

from matih_ray.control.building import addresses_of


@pytest.mark.parametrize(
    ("config", "addresses"),
    [
        ({}, []),
        ({"host": "db"}, []),
        ({"host": "db", "port": 5432}, [("db", 5432)]),
        ({"host": "db", "port": "5432"}, []),
        ({"baseUrl": "https://api.example.com/v1"}, [("api.example.com", 443)]),
        ({"url": "http://[::1]:8080/graphql"}, [("::1", 8080)]),
        ({"endpointOverride": "http://minio"}, [("minio", 80)]),
        (
            {"baseUrl": "https://a", "authUrl": "https://169.254.169.254/token"},
            [("a", 443), ("169.254.169.254", 443)],
        ),
        (
            {"host": "m1", "port": 27017, "hosts": ["m2:27018", "::1:1"]},
            [("m1", 27017), ("m2", 27018), ("::1", 1)],
        ),
    ],
)
def test_addresses_are_found_wherever_they_are_written(config: dict, addresses: list):
    assert addresses_of(config) == addresses
