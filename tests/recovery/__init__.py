import pytest

pytest.register_assert_rewrite("tests.recovery.cycle", "tests.recovery.scene")
