"""A store that forgets with the process.

What lives here: the default without a state directory. It keeps what it is given and nothing else.
"""

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from blockyard.base.errors import OwnerMismatch, ResourceExists
from blockyard.jobs.store.port import MAX_REQUESTS, Incarnation, JobRecord


class MemoryStore:
    """Records in a dict."""

    durable = False
    shared = False

    def __init__(self) -> None:
        self._records: dict[str, JobRecord] = {}
        self._owners: dict[str, int] = {}
        self._requests: OrderedDict[str, JobRecord] = OrderedDict()
        self._incarnations: dict[int, Incarnation] = {}
        self._token = 0
        self._identity = uuid.uuid4().hex

    async def identity(self) -> str:
        return self._identity

    async def create(self, record: JobRecord, incarnation: int) -> None:
        present = self._records.get(record.job_id)
        if present is not None and present.fencing_token != record.fencing_token:
            raise ResourceExists("job", record.job_id)
        self._records[record.job_id] = record
        self._owners[record.job_id] = incarnation
        if record.request_id:
            self._requests[record.request_id] = record
            if len(self._requests) > MAX_REQUESTS:
                self._requests.popitem(last=False)

    async def put(self, record: JobRecord) -> None:
        self._check(record.job_id, record.fencing_token)
        if record.job_id not in self._records:
            raise OwnerMismatch("job", record.job_id, "nobody", f"#{record.fencing_token}")
        self._records[record.job_id] = record

    async def remove(self, job_id: str, fencing_token: int, refused_request: str = "") -> None:
        self._check(job_id, fencing_token)
        self._requests.pop(refused_request, None)
        self._records.pop(job_id, None)
        self._owners.pop(job_id, None)

    def _check(self, job_id: str, token: int) -> None:
        present = self._records.get(job_id)
        if present is not None and present.fencing_token != token:
            raise OwnerMismatch("job", job_id, f"#{present.fencing_token}", f"#{token}")

    async def load(self) -> Sequence[JobRecord]:
        return [self._records[job_id] for job_id in sorted(self._records)]

    async def find(self, job_id: str) -> JobRecord | None:
        return self._records.get(job_id)

    async def request(self, request_id: str) -> JobRecord | None:
        return self._requests.get(request_id)

    async def begin(self, address: str, least_token: int) -> int:
        self._token = max(self._token + 1, least_token)
        self._incarnations[self._token] = Incarnation(self._token, address, 0)
        return self._token

    async def beat(self, incarnation: int) -> None:
        known = self._incarnations.get(incarnation)
        if known is None:
            raise OwnerMismatch("jobs service", f"#{incarnation}", "nobody", f"#{incarnation}")
        self._incarnations[incarnation] = replace(known, beat=known.beat + 1)

    async def end(self, incarnation: int, beat: int | None = None) -> bool:
        known = self._incarnations.get(incarnation)
        if known is None or beat not in (None, known.beat):
            return False
        del self._incarnations[incarnation]
        return True

    async def incarnations(self) -> Sequence[Incarnation]:
        return list(self._incarnations.values())

    async def orphans(self) -> Sequence[JobRecord]:
        return [record for record in await self.load() if self._owners[record.job_id] not in self._incarnations]

    async def adopt(self, job_id: str, seen_token: int, incarnation: int) -> JobRecord | None:
        present = self._records.get(job_id)
        if present is None or present.fencing_token != seen_token:
            return None
        self._token += 1
        self._records[job_id] = adopted = replace(present, fencing_token=self._token)
        self._owners[job_id] = incarnation
        return adopted

    async def owner_of(self, job_id: str) -> Incarnation | None:
        return self._incarnations.get(self._owners.get(job_id, 0))
