"""The three tables of the lake as Arrow schemas, a description on every column."""

from __future__ import annotations

import pyarrow as pa

from schemas.errors import ErrorCode

SCHEMA_VERSION = "1"

KINDS = (
    "title",
    "section_header",
    "text",
    "list_item",
    "table",
    "figure",
    "caption",
    "formula",
    "footnote",
    "page_header",
    "page_footer",
    "code",
    "other",
)
"""What a block can be. `page_header` and `page_footer` are left out of a page's Markdown."""

_TIME = pa.timestamp("us", tz="UTC")
_BOX = pa.list_(pa.float32())
_STRINGS = pa.list_(pa.string())
_CODES = "one of " + ", ".join(ErrorCode)


def _schema(table: str, columns: list[tuple[str, pa.DataType, str]]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"description": text}) for name, kind, text in columns]
    return pa.schema(
        fields, metadata={"pagelake.table": table, "pagelake.schema_version": SCHEMA_VERSION}
    )


DOCUMENTS = _schema(
    "documents",
    [
        ("document_id", pa.string(), "key: hash of source_uri, source_version and recipe_id"),
        ("source_uri", pa.string(), "address of the source object"),
        ("source_version", pa.string(), "changes whenever the source object does"),
        ("recipe_id", pa.string(), "hash of what decided the raw answer: model, render, rules"),
        ("content_sha256", pa.string(), "SHA-256 of the bytes; null if they could not be read"),
        ("media_type", pa.string(), "judged by content, never by name"),
        ("source_bytes", pa.int64(), "size of the source object"),
        ("page_count", pa.int32(), "rows of this document in pages"),
        ("source_page_count", pa.int32(), "pages that the file itself claims to have"),
        ("pages_ok", pa.int32(), "pages with text"),
        ("pages_empty", pa.int32(), "pages with nothing on them to read"),
        ("pages_failed", pa.int32(), "pages that could not be read"),
        ("status", pa.string(), "ok, partial (some pages failed) or failed"),
        ("error_code", pa.string(), f"first failure, {_CODES}"),
        ("error_message", pa.string(), "what happened, for a person"),
        (
            "metadata",
            pa.map_(pa.string(), pa.string()),
            "title, author and so on, as the file says",
        ),
        ("runs", pa.int32(), "how many runs have tried this document"),
        ("run_id", pa.string(), "the run that read it last"),
        ("shard_id", pa.string(), "the shard whose files hold it"),
        ("started_at", _TIME, "when reading began"),
        ("finished_at", _TIME, "when the last page was done"),
        ("deleted_at", _TIME, "when a listing with --mark-deleted first lacked it; null if none"),
    ],
)

PAGES = _schema(
    "pages",
    [
        ("document_id", pa.string(), "key, with page_number"),
        ("page_number", pa.int32(), "counts from 1"),
        ("source_uri", pa.string(), "address of the source object"),
        ("status", pa.string(), "ok, empty (nothing to read) or failed"),
        ("error_code", pa.string(), _CODES),
        ("error_message", pa.string(), "what happened, for a person"),
        ("origin", pa.string(), "ocr or text_layer; null if the page could not be opened"),
        ("width_pt", pa.float32(), "width of the page as displayed, in points of 1/72 inch"),
        ("height_pt", pa.float32(), "height of the page as displayed, in points"),
        ("rotation", pa.int16(), "further clockwise turn found and undone: 0, 90, 180 or 270"),
        ("markdown", pa.string(), "the page in reading order, running heads left out"),
        ("text", pa.string(), "the same without markup"),
        ("raw_output", pa.string(), "what the engine answered, word for word"),
        ("engine", pa.string(), "what read the page"),
        ("model", pa.string(), "the engine's model"),
        ("parser_version", pa.string(), "version of what turned raw_output into blocks"),
        ("finish_reason", pa.string(), "why the engine stopped"),
        ("prompt_tokens", pa.int32(), "of all answers asked for; null for engines without tokens"),
        ("output_tokens", pa.int32(), "of all answers asked for; null for engines without tokens"),
        ("attempts", pa.int16(), "how many answers were asked for; 0 for a blank page"),
        ("flags", _STRINGS, "what was noticed, e.g. turned, bad_text_layer"),
        ("image_width", pa.int32(), "pixels of the image that was read"),
        ("image_height", pa.int32(), "pixels of the image that was read"),
        ("render_ms", pa.float32(), "milliseconds to open, check and render the page"),
        ("engine_ms", pa.float32(), "milliseconds in the engine, all answers together"),
        ("run_id", pa.string(), "the run that read it"),
        ("shard_id", pa.string(), "the shard whose files hold it"),
    ],
)

BLOCKS = _schema(
    "blocks",
    [
        ("document_id", pa.string(), "key, with page_number and block_number"),
        ("page_number", pa.int32(), "counts from 1"),
        ("block_number", pa.int32(), "reading order, counts from 1"),
        ("kind", pa.string(), "one of " + ", ".join(KINDS)),
        ("label", pa.string(), "the engine's or layout's own word for it"),
        ("text", pa.string(), "plain text of the block; of a table, its cells"),
        ("html", pa.string(), "a table as HTML; null for other kinds"),
        ("x0", pa.float32(), "left, in points over the page as displayed; null if unknown"),
        ("y0", pa.float32(), "top"),
        ("x1", pa.float32(), "right"),
        ("y1", pa.float32(), "bottom"),
        ("boxes", pa.list_(_BOX), "all boxes [x0, y0, x1, y1] where the block has several"),
        ("confidence", pa.float32(), "mean confidence of the engine, 0 to 1; null if unknown"),
        ("figure_uri", pa.string(), "a figure's picture, relative to the lake"),
        ("run_id", pa.string(), "the run that read it"),
        ("shard_id", pa.string(), "the shard whose files hold it"),
    ],
)
