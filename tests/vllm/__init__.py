"""Tests on a real vLLM, in an environment of their own."""
