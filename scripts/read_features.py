#!/usr/bin/env python3
"""Reads features that Sluice wrote, with other programs' readers, and prints what
`pipeline inspect DIR --json` prints of them: rows, columns, and a checksum of each
column's values. With --check PIPELINE it runs that program and compares.

    pip install pyarrow numpy
    python3 scripts/read_features.py runs/features/features --check bin/pipeline

A column's checksum is the SHA-256 of its numbers, little endian, in the order of
the rows, or of its texts in UTF-8 with a zero byte after each.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy
import pyarrow
import pyarrow.ipc
import pyarrow.parquet


def batches(path, kind):
    """The record batches of a part."""
    if kind == "parquet":
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=1024)
    else:
        with pyarrow.memory_map(str(path)) as source:
            with pyarrow.ipc.open_file(source) as file:
                for i in range(file.num_record_batches):
                    yield file.get_batch(i)


def numbers(column):
    """A column's values as bytes; no value may be missing."""
    if column.null_count:
        raise SystemExit(f"{column.null_count} values are missing")
    if pyarrow.types.is_string(column.type):
        return b"".join(text.encode() + b"\0" for text in column.to_pylist())
    if pyarrow.types.is_fixed_size_list(column.type):
        column = column.flatten()
    values = column.to_numpy(zero_copy_only=False)
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def arrays(folder):
    """The columns of a part of NumPy arrays, as bytes and a number of rows."""
    for path in sorted(folder.glob("*.npy")):
        values = numpy.load(path)
        if values.dtype.kind == "U":
            data = b"".join(text.encode() + b"\0" for text in values.tolist())
        else:
            data = values.astype(values.dtype.newbyteorder("<")).tobytes()
        yield path.stem, data, len(values)


def read(folder):
    """What all parts of a folder hold."""
    manifest = json.loads((folder / "manifest.json").read_text())
    sums = {c["name"]: hashlib.sha256() for c in manifest["columns"]}
    rows = 0
    for part in manifest["parts"]:
        for file in part["files"]:
            data = (folder / file["name"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != file["sha256"]:
                raise SystemExit(f"{file['name']} is not what the manifest says")
        first = folder / part["files"][0]["name"]
        have = 0
        if manifest["format"] == "npy":
            for name, data, have in arrays(first.parent):
                sums[name].update(data)
        else:
            for batch in batches(first, manifest["format"]):
                have += batch.num_rows
                for name, column in zip(batch.schema.names, batch.columns):
                    sums[name].update(numbers(column))
        if have != part["rows"]:
            raise SystemExit(f"part {part['part']} has {have} rows, the manifest says {part['rows']}")
        rows += have
    return {
        "format": manifest["format"],
        "rows": rows,
        "columns": [{"name": c["name"], "type": c["type"], "sha256": sums[c["name"]].hexdigest()} for c in manifest["columns"]],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="folder with manifest.json")
    parser.add_argument("--check", metavar="PIPELINE", help="compare with what this program's inspect says")
    args = parser.parse_args()
    found = read(args.folder)
    json.dump(found, sys.stdout, indent=2)
    print()
    if not args.check:
        return
    said = json.loads(subprocess.run([args.check, "inspect", str(args.folder), "--json"], check=True, capture_output=True).stdout)
    same = said["rows"] == found["rows"] and said["format"] == found["format"]
    same = same and {(c["name"], c["type"], c["sha256"]) for c in said["columns"]} == {(c["name"], c["type"], c["sha256"]) for c in found["columns"]}
    if not same:
        raise SystemExit("inspect says something else")
    print("inspect says the same", file=sys.stderr)


if __name__ == "__main__":
    main()
