"""
Run a command and print, as JSON, how long it took, on the clock and of a processor, and its peak of memory.

`python -m benchmarks.child COMMAND ...`. It stands between, and imports next to nothing, because
the system counts the memory of the process that starts a command among the command's own.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Run the command of the arguments; its output goes to stderr."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": usage.ru_utime + usage.ru_stime,
                "peak_bytes": usage.ru_maxrss * unit,
                "exit_code": process.returncode,
            }
        )
    )


if __name__ == "__main__":
    main()
