"""Documents that are written again between a death and the resume."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.faultproxy import Match, puts
from tests.recovery.conftest import NewScene
from tests.recovery.letters import pdf, tar_gz
from tests.recovery.scene import PART_PAGES, Scene, filled
from tests.recovery.test_clocks import shown
from tests.s3 import S3Server

LONG, SHORT = range(12), range(20, 24)
