"""The flow `ocr` on a real Prefect server, started by the tests and gone after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pymupdf
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from schemas.settings import IngestSettings


@pytest.fixture(scope="module")
def api_url() -> Iterator[str]:
    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    pdf = pymupdf.open()
    pdf.new_page().insert_text((72, 72), "The harbour office opens at nine on weekdays.")
    pdf.save(folder / "notice.pdf")
    (folder / "empty.pdf").write_bytes(b"")
    return folder


def test_the_command_is_a_flow_run_when_a_server_is_set(
    api_url: str, source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    ended = pagelake("ingest", source, lake, "--layout", "none", "--json", PREFECT_API_URL=api_url)
    assert ended.code == 3, ended.err
    assert ended.told["pages"] == {"total": 1, "ok": 1, "empty": 0, "failed": 0}
    rows = duckdb.sql(f"SELECT text FROM '{lake}/pages/*/*.parquet'").fetchall()
    assert rows == [("The harbour office opens at nine on weekdays.",)]
    with get_client(sync_client=True) as client:
        (run,) = [run for run in client.read_flow_runs() if run.parameters["dest"] == str(lake)]
        artifacts = client.read_artifacts()
    assert run.state is not None and run.state.is_completed()
    assert run.name == f"{source} to {lake}"
    kinds = {artifact.type for artifact in artifacts if artifact.flow_run_id == run.id}
    assert kinds == {"markdown", "table"}


def test_the_flow_has_the_settings_as_flat_described_parameters() -> None:
    from flows.ocr import ocr

    told = ocr.parameters.model_dump()["properties"]
    assert set(told) == set(IngestSettings.model_fields)
    assert told["text_layer"]["enum"] == ["auto", "ignore"]
    assert all(parameter["description"] for parameter in told.values())
    assert ocr.parameters.required == ["source", "dest"]


def test_a_misspelt_parameter_is_refused(api_url: str) -> None:
    from flows.ocr import ocr

    with pytest.raises(Exception, match="text_layr"):
        ocr(source="somewhere", dest="lake", text_layr="auto")
