"""One file an engine. Only these import OCR libraries, and only when a page is read."""
