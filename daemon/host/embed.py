#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a header with each .varlink file as a string: embed.py OUTPUT FILE..."""
import pathlib
import sys

lines = ["/* SPDX-License-Identifier: Apache-2.0 */", "#pragma once", ""]
for name in sys.argv[2:]:
    texts = pathlib.Path(name).read_text(encoding="utf-8").splitlines()
    interface = next(text for text in texts if text.startswith("interface ")).split()[1]
    symbol = "interface_" + interface.replace(".", "_")
    lines.append(f"static const char {symbol}[] __attribute__((__unused__)) =")
    for text in texts:
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'        "{escaped}\\n"')
    lines[-1] += ";"
    lines.append("")
pathlib.Path(sys.argv[1]).write_text("\n".join(lines), encoding="utf-8")
