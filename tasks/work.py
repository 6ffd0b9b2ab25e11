"""One job of a run, done by whichever worker claims it."""

from __future__ import annotations

import asyncio
from functools import partial

from tasks.claim import Claim
from tasks.mend import Mender
from tasks.orphans import remove_orphans
from tasks.pipeline import Flow
from tasks.plan import Job, mark_done
from tasks.shardlog import ShardLog
from tasks.shardreader import read_shard


async def do_job(flow: Flow, run_id: str, job: Job) -> bool:
    """Read a shard, or mend one; whether it is done.

    It is not if the run was asked to stop.

    Raises:
        ClaimHeld: another worker of this run is at it.
        ClaimLost: another worker took it over.
    """
    settings, store = flow.settings, flow.store
    claim = Claim(store, run_id, job.name, flow.lock.token, settings.take_over_after)
    async with claim, flow.turns.take(alone=claim.careful):
        if job.mends:
            done = await Mender(flow, job.shard, claim).read()
            log = await asyncio.to_thread(ShardLog, store, job.shard)
            check = partial(flow.check, claim)
            await asyncio.to_thread(remove_orphans, store, job.shard, log, claim.taken_over, check)
        else:
            done = await read_shard(flow, job.shard, claim)
        if done:
            await asyncio.to_thread(mark_done, store, run_id, job)
        return done
