#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes numbered SQL files as a C array: embed.py OUTPUT NAME FILE...

The files must be numbered from 0001 without a gap; script i takes a database from version i to
i + 1.
"""
import pathlib
import re
import sys


def main():
    output, name, *files = sys.argv[1:]
    lines = ["/* Made from migrations/ by embed.py. */", f"static const char *const {name}[] = {{"]
    for number, file in enumerate(files, 1):
        path = pathlib.Path(file)
        if not re.fullmatch(rf"[a-z]+-{number:04}\.sql", path.name):
            sys.exit(f"{path.name}: expected number {number:04}")
        for line in path.read_text(encoding="ascii").splitlines():
            escaped = line.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
            lines.append(f'        "{escaped}\\n"')
        lines.append("        ,")
    lines.append("};")
    pathlib.Path(output).write_text("\n".join(lines) + "\n", encoding="ascii")


main()
