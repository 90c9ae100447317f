"""A store that forgets with the process.

What lives here: the default until jobs are durable. It keeps what it is given and nothing else.
"""

from collections.abc import Sequence

from blockyard.jobs.store.port import JobRecord


class MemoryStore:
    """Records in a dict."""

    def __init__(self) -> None:
        self._records: dict[str, JobRecord] = {}

    async def put(self, record: JobRecord) -> None:
        self._records[record.job_id] = record

    async def remove(self, job_id: str) -> None:
        self._records.pop(job_id, None)

    async def load(self) -> Sequence[JobRecord]:
        return list(self._records.values())
