"""What a log line may say of an exception that nobody foresaw."""

from __future__ import annotations

import json
import subprocess
import sys


def test_an_exceptions_text_and_variables_stay_out_of_the_log() -> None:
    code = """
import structlog
from pacs_cbir import logs
logs.configure()
try:
    patient = "Doe^Jane"
    raise ValueError(f"bad value {patient}")
except ValueError as error:
    structlog.get_logger().error("it broke", exc_info=error)
    structlog.get_logger().exception("it broke again")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["it broke", "it broke again"]
    assert all(line["kind"] == "ValueError" and line["frames"] for line in lines)
    assert "Jane" not in done.stderr


def test_what_nobody_catches_says_where_and_not_what() -> None:
    code = """
import logging
import threading
from pacs_cbir import logs
logs.configure()
logs.catch_unforeseen()
patient = "Doe^Jane"
try:
    raise ValueError(f"bad value {patient}")
except ValueError:
    logging.getLogger("uvicorn.error").exception("it broke")
def broken():
    raise LookupError(f"bad value {patient}")
thread = threading.Thread(target=broken)
thread.start()
thread.join()
raise RuntimeError(f"bad value {patient}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert [kind in done.stderr for kind in ("ValueError", "LookupError", "RuntimeError")] == [True] * 3
    assert "<string>:17" in done.stderr
    assert "Jane" not in done.stderr
