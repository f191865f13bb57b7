"""Gives batches back as they are; for BenchmarkExec. It needs pyarrow."""
import sys

import pyarrow as pa

batches = pa.ipc.open_stream(sys.stdin.buffer)
out = sys.stdout.buffer
out.write(batches.schema.serialize())
out.flush()
for batch in batches:
    out.write(batch.serialize())
    out.flush()
