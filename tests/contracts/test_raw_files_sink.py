"""The raw files sink keeps the sink contract on a directory and on S3, replies lost included."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from botocore.exceptions import ConnectionClosedError
from botocore.httpsession import URLLib3Session

from matih_ray.errors import ValidationError
from matih_ray.model.policy import WriteMode
from matih_ray.testing.contracts.sink import LostReplyContract, SinkContract
from matih_ray.testing.contracts.sink_lab import SinkLab, target
from matih_ray.testing.devstack.object_stores import S3Server
from tests.integration.raw_lab import LocalLab, S3Lab

MODES = [WriteMode.APPEND, WriteMode.OVERWRITE]
BUCKET = "raw-contract"


class RawContract(SinkContract):
    """The contract but for merges."""

    @pytest.mark.parametrize("sequence", [1, 2], ids=["first", "later"])
    @pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
    def test_two_owners_of_a_run_end_as_one(
        self, lab: SinkLab, mode: WriteMode, sequence: int
    ) -> None:
        super().test_two_owners_of_a_run_end_as_one(lab, mode, sequence)

    def test_a_merge_is_refused(self, lab: SinkLab) -> None:
        with pytest.raises(ValidationError, match="iceberg"):
            lab.sink().prepare(target(mode=WriteMode.MERGE))


class Network:
    """The way between boto3 and the store: loses replies of commits, and lets them pass one at a
    time, since moto looks for an object and then writes it, where S3 does both at once."""

    def __init__(self) -> None:
        self.lost: bool | None = None
        self._turn = threading.Lock()
        self._send = URLLib3Session.send

    def __enter__(self) -> Network:
        def send(session, request):
            commit = request.method == "PUT" and "/log/" in request.url
            with self._turn:
                lost = self.lost if commit else None
                if lost is None:
                    return self._send(session, request)
                self.lost = None
                if lost is True:
                    self._send(session, request)
            raise ConnectionClosedError(endpoint_url=request.url)

        URLLib3Session.send = send
        return self

    def __exit__(self, *_: object) -> None:
        URLLib3Session.send = self._send


class UnreliableS3Lab(S3Lab):
    network: Network

    def lose_reply(self, *, applied: bool) -> None:
        self.network.lost = applied


@pytest.fixture(scope="module")
def local_lab(tmp_path_factory: pytest.TempPathFactory) -> LocalLab:
    return LocalLab.create(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def s3_lab() -> Iterator[UnreliableS3Lab]:
    with S3Server() as server, Network() as network:
        lab = UnreliableS3Lab.create(server, BUCKET)
        lab.network = network
        yield lab


class TestRawFilesInADirectory(RawContract):
    @pytest.fixture
    def lab(self, local_lab: LocalLab) -> LocalLab:
        return local_lab


class TestRawFilesOnS3(RawContract, LostReplyContract):
    @pytest.fixture
    def lab(self, s3_lab: UnreliableS3Lab) -> UnreliableS3Lab:
        return s3_lab

    @pytest.mark.parametrize("applied", [True, False], ids=["applied", "not applied"])
    @pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
    def test_a_lost_reply_loads_once(
        self, lab: UnreliableS3Lab, mode: WriteMode, *, applied: bool
    ) -> None:
        super().test_a_lost_reply_loads_once(lab, mode, applied=applied)

    # a request of pyarrow costs moto 30 ms and more, a partition some of them: one form of each
    @pytest.mark.parametrize(("mode", "sequence"), [(WriteMode.OVERWRITE, 2)])
    def test_two_owners_of_a_run_end_as_one(
        self, lab: UnreliableS3Lab, mode: WriteMode, sequence: int
    ) -> None:
        super().test_two_owners_of_a_run_end_as_one(lab, mode, sequence)

    @pytest.mark.parametrize("partition_by", [("bucket(5, id)", "year(at)")])
    def test_partitioned_rows_read_back_the_same(
        self, lab: UnreliableS3Lab, partition_by: tuple[str, ...]
    ) -> None:
        super().test_partitioned_rows_read_back_the_same(lab, partition_by)

    # decided before a file is touched, and shown on a directory
    test_only_the_direct_successor_may_commit = None
    test_rows_that_do_not_fit_the_table_are_refused = None
