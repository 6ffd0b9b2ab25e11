"""New Markdown, text and blocks of pages that an older parser made, out of `raw_output`.

    part ─▶ rows of another parser's ─▶ worker processes ─▶ the part written anew in its place

Nothing else changes: keys, failures, figures and what was paid stay. Killed anywhere, the next
call goes on: a part's rows say which parser made them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DocumentError
from schemas.records import Extent, PageResult, ParsedPage, Shard
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks.compaction import overlay
from tasks.grounding import FLAGS
from tasks.keyorder import Keyed, in_key_order
from tasks.lakefiles import shard_of
from tasks.lock import LakeLock
from tasks.parseagain import Figure, Said, can_parse, parse_again, parser_version
from tasks.plan import read_segments
from tasks.pool import WorkerPool
from tasks.rewrite import Part, keeps_changing, read_part, rewrite, write_part
from tasks.rows import blocks_table, parquet
from tasks.runs import open_runs
from tasks.shardlog import Entry, read_entry
from tasks.store import Store, keys, read_rows
