#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a manual page: fill.py TEMPLATE SOURCE OUTPUT VERSION

A line of the template that is @COMMANDS@ becomes what SOURCE, the program durablectl, says of its
subcommands; @SECTIONS FIRST@ becomes what SOURCE, a page of docs/, says from the heading FIRST on,
@SECTION ONE@ what it says under that heading. So that no page says what the program or the
documentation says otherwise.
"""
import os
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tui"))
import commands  # noqa: E402  pylint: disable=wrong-import-position


def escape(text):
    """Plain text as roff: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace("`", "\\(ga").replace("~", "\\(ti").replace("^", "\\(ha")
    return "\\&" + text if text.startswith(".") else text


def inline(text):
    """A line of Markdown: code is bold, a link is its text."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    out = []
    for i, part in enumerate(re.split(r"(`[^`]*`|\*\*[^*]+\*\*|\*[^* ][^*]*\*)", text)):
        edge = 0 if i % 2 == 0 else 2 if part.startswith("**") else 1
        plain = escape(part[edge:len(part) - edge]).removeprefix("\\&")
        if edge:
            plain = ("\\fB" if edge == 2 or part[0] == "`" else "\\fI") + plain + "\\fR"
        out.append(plain)
    line = "".join(out)
    return "\\&" + line if line.startswith(".") else line


def table(rows):
    """Each row an item: its first cell, what stands between, the last one's text."""
    lines = []
    for row in rows:
        cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
        if not cells[0] or set(cells[0]) <= set("-: "):
            continue
        head = inline(cells[0])
        if len(cells) > 2 and cells[1]:
            head += f" ({inline(cells[1])})"
        lines += [".TP", head, inline(cells[-1])]
    return lines


def markdown(text, first, alone):
    lines, text = [], text[text.index(f"\n## {first}\n") + 1:]
    if alone:
        text = text.partition("\n## ")[0]
    blocks = re.split(r"\n\n+", text.strip())
    while blocks:
        block = blocks.pop(0)
        rows = block.split("\n")
        if block.startswith("```"):
            while not block.rstrip().endswith("```") or block.count("```") < 2:
                block += "\n\n" + blocks.pop(0)
            code = block.split("\n")[1:-1]
            lines += [".PP", ".EX", *(escape(line) for line in code), ".EE"]
        elif block.startswith("#"):
            heading = rows[0].lstrip("# ")
            lines.append(f'.SH "{inline(heading if "`" in heading else heading.upper())}"')
            lines += [".PP", *map(inline, rows[1:])] if rows[1:] else []
        elif block.startswith("|"):
            # The first two rows are the names of the columns and a rule.
            lines += table(rows[2:])
        elif block.startswith("- "):
            for item in re.split(r"\n(?=- )", block):
                lines += [".IP \\(bu 2", *(inline(line.strip()) for line in
                                           item[2:].split("\n"))]
        else:
            lines += [".PP", *map(inline, rows)]
    return lines


def command_section(command):
    lines = [f'.SS "durablectl {escape(command.name)} {escape(command.arguments)}"',
             escape(command.summary[0].upper() + command.summary[1:]) + "."]
    for kind, block in command.blocks:
        if kind == "text":
            lines += [".PP", *map(escape, block)]
        elif kind == "examples":
            lines += [".PP", ".EX", *(escape("  " + line) for line in block), ".EE"]
        else:
            for term, text in block:
                lines += [".TP", f"\\fB{escape(term)}\\fR", escape(text)]
    return lines


def main():
    template, source, output = sys.argv[1:4]
    version = sys.argv[4]
    lines = []
    for line in pathlib.Path(template).read_text(encoding="utf-8").split("\n"):
        sections = re.fullmatch(r"@SECTION(S?) (.*)@", line)
        if line == "@COMMANDS@":
            for command in commands.read(source):
                lines += command_section(command)
        elif sections:
            text = pathlib.Path(source).read_text(encoding="utf-8")
            lines += markdown(text, sections.group(2), not sections.group(1))
        else:
            lines.append(line.replace("@VERSION@", version))
    pathlib.Path(output).write_text("\n".join(lines), encoding="utf-8")


try:
    main()
except (ValueError, OSError, subprocess.SubprocessError) as error:
    sys.exit(f"fill.py: {sys.argv[1]}: {error}")
