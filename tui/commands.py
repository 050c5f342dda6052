# SPDX-License-Identifier: Apache-2.0
"""durablectl's table of subcommands, as the program itself tells it: for manual and completions."""
import dataclasses
import re
import subprocess


@dataclasses.dataclass
class Option:
    name: str
    value: str = ""  # how its value is called; "": it takes none
    text: str = ""

    @property
    def choices(self):
        """The words that may be given, where the text lists them: "...: auto, address, off"."""
        found = re.search(r": ((?:[a-z]+, )+[a-z]+)$", self.text)
        return found.group(1).split(", ") if self.value and found else []


@dataclasses.dataclass
class Command:
    name: str
    arguments: str
    summary: str
    # ("text", lines), ("examples", lines) or ("items", [(term, text)])
    blocks: list

    @property
    def options(self):
        found = []
        for kind, block in self.blocks:
            for term, text in block if kind == "items" else []:
                for part in term.split(", ") if term.startswith("--") else []:
                    name, _, value = part.partition(" ")
                    found.append(Option(name, value, text))
        return found

    @property
    def verbs(self):
        """What `durablectl objects` takes as its first word, with what it does."""
        words = self.arguments.split()[0].split("|") if self.arguments else []
        if len(words) < 2:
            return {}
        texts = {term.split()[0]: text for kind, block in self.blocks if kind == "items"
                 for term, text in block}
        return {word: texts.get(word, "") for word in words}


def run(program, *arguments):
    return subprocess.run([program, *arguments], check=True, capture_output=True,
                          encoding="utf-8").stdout


def read_block(lines):
    if not all(line.startswith("  ") for line in lines):
        return "text", lines
    if re.match(r"  (durablectl|systemctl) ", lines[0]):
        return "examples", [line[2:] for line in lines]
    items = []
    for line in lines:
        found = re.match(r"  (\S.*?)(?:\s{2,}(.*))?$", line)
        if found and line[2] != " ":
            items.append([found.group(1), found.group(2) or ""])
        elif items:
            items[-1][1] += " " + line.strip()
        else:
            raise ValueError(f"not understood in durablectl's help: {line!r}")
    return "items", [tuple(item) for item in items]


def read(program):
    """All subcommands of the program, in the order of its table."""
    listed = re.findall(r"^  ([a-z][a-z-]*)\s{1,}\S", run(program, "help"), re.M)
    if not listed:
        raise ValueError(f"{program} help lists no command")
    found = []
    for name in listed:
        head, _, rest = run(program, "help", name).partition("\n\n")
        usage, summary = head.split("\n")
        blocks = [read_block(block.split("\n")) for block in rest.strip("\n").split("\n\n")
                  if block]
        arguments = usage.removeprefix(f"durablectl {name}").strip()
        found.append(Command(name, arguments, summary.strip(), blocks))
    return found
