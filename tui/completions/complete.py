#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes durablectl's completions for a shell: complete.py {bash|zsh|fish} DURABLECTL OUTPUT

All that they know comes from the program's own table.
"""
import os
import pathlib
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import commands  # noqa: E402  pylint: disable=wrong-import-position

HEAD = "# SPDX-License-Identifier: Apache-2.0\n# Written at build time from durablectl's table.\n"
# What a value that is called so is, where it is something of the file system.
FOLDERS, FILES = {"DIR"}, {"PATH", "FILE"}


def takes(command, kinds):
    """Whether the command's own arguments are of that kind."""
    words = command.arguments.replace("[", " ").replace("]", " ").replace("|", " ").split()
    outside = [word for i, word in enumerate(words)
               if i == 0 or not words[i - 1].startswith("--")]
    verbs = [word for key, block in command.blocks if key == "items"
             for term, _ in block if not term.startswith("--")
             for word in term.replace("[", " ").replace("|", " ").replace("]", " ").split()]
    return bool(kinds & set(outside + verbs))


def bash(table):
    lines = [HEAD, "_durablectl() {",
             "        local word=$2 before=$3 command=${COMP_WORDS[1]-}", "        COMPREPLY=()",
             "        if [ \"$COMP_CWORD\" -eq 1 ] ||", "                "
             "{ [ \"$COMP_CWORD\" -eq 2 ] && [ \"$command\" = help ]; }; then",
             "                mapfile -t COMPREPLY < <(compgen -W "
             f"'{' '.join(c.name for c in table)} help --help --version' -- \"$word\")",
             "                return", "        fi", "        case $command:$before in"]
    for c in table:
        for o in c.options:
            key = f"        {c.name}:{o.name})"
            if o.choices:
                lines.append(f"{key} mapfile -t COMPREPLY < <(compgen -W '{' '.join(o.choices)}' "
                             "-- \"$word\"); return ;;")
            elif o.value in FOLDERS | FILES:
                kind = "-d" if o.value in FOLDERS else "-f"
                lines.append(f"{key} compopt -o filenames; mapfile -t COMPREPLY < <(compgen {kind} "
                             "-- \"$word\"); return ;;")
            elif o.value:
                lines.append(f"{key} return ;;")
    lines += ["        esac", "        case $command in"]
    for c in table:
        words = " ".join([o.name for o in c.options] + ["--help"])
        lines.append(f"        {c.name})")
        if c.verbs:
            lines += ["                if [ \"$COMP_CWORD\" -eq 2 ] && [[ $word != -* ]]; then",
                      f"                        mapfile -t COMPREPLY < <(compgen -W "
                      f"'{' '.join(c.verbs)}' -- \"$word\")", "                        return",
                      "                fi"]
        lines += ["                if [[ $word = -* ]]; then",
                  f"                        mapfile -t COMPREPLY < <(compgen -W '{words}' -- "
                  "\"$word\")"]
        for kinds, flag in ((FOLDERS, "-d"), (FILES, "-f")):
            if takes(c, kinds):
                lines += ["                else", "                        compopt -o filenames",
                          "                        mapfile -t COMPREPLY < <(compgen "
                          f"{flag} -- \"$word\")"]
                break
        lines += ["                fi", "                ;;"]
    return lines + ["        esac", "}", "complete -F _durablectl durablectl", ""]


def zsh_text(text):
    for character in "\\'[]:":
        text = text.replace(character, "'\\''" if character == "'" else "\\" + character)
    return text


def zsh(table):
    lines = ["#compdef durablectl", HEAD, "_durablectl() {",
             "        local context state state_descr line ret=1", "        typeset -A opt_args",
             "        local -a commands=("]
    lines += [f"                '{c.name}:{zsh_text(c.summary)}'" for c in table]
    lines += ["                'help:what a command does'", "        )",
              "        _arguments -C '1: :->command' '*:: :->rest' && ret=0",
              "        case $state in", "        command)",
              "                _describe -t commands command commands && ret=0",
              "                (( CURRENT == 1 )) && [[ $PREFIX = -* ]] &&",
              "                        _arguments '--help[what there is]' "
              "'--version[the version]' && ret=0", "                ;;",
              "        rest)", "                case $line[1] in"]
    for c in table:
        specs = []
        for o in c.options:
            value = ""
            if o.choices:
                value = f":{o.value}:({' '.join(o.choices)})"
            elif o.value:
                action = ("_files -/" if o.value in FOLDERS else
                          "_files" if o.value in FILES else " ")
                value = f":{zsh_text(o.value)}:{action}"
            specs.append(f"'{o.name}[{zsh_text(o.text)}]{value}'")
        specs.append("'--help[what it does]'")
        if c.verbs:
            verbs = " ".join(f"{verb}\\:\"{zsh_text(text)}\"" for verb, text in c.verbs.items())
            specs.append(f"'1:verb:(({verbs}))'")
        if takes(c, FOLDERS):
            specs.append("'*:folder:_files -/'")
        elif takes(c, FILES):
            specs.append("'*:file:_files'")
        lines.append(f"                {c.name}) _arguments \\")
        lines += [f"                        {spec} \\" for spec in specs]
        lines.append("                        && ret=0 ;;")
    lines += ["                help) _describe -t commands command commands && ret=0 ;;",
              "                esac", "                ;;", "        esac", "        return ret",
              "}", '_durablectl "$@"', ""]
    return lines


def fish_text(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish(table):
    names = " ".join([c.name for c in table] + ["help"])
    none = f"not __fish_seen_subcommand_from {names}"
    lines = [HEAD, "complete -c durablectl -f"]
    for c in table:
        lines.append(f"complete -c durablectl -n '{none}' -a {c.name} -d {fish_text(c.summary)}")
    lines += [f"complete -c durablectl -n '{none}' -a help -d 'what a command does'",
              f"complete -c durablectl -n '{none}' -l help -d 'what there is'",
              f"complete -c durablectl -n '{none}' -l version -d 'the version'",
              "complete -c durablectl -n '__fish_seen_subcommand_from help' -a "
              f"'{' '.join(c.name for c in table)}'"]
    for c in table:
        seen = f"-n '__fish_seen_subcommand_from {c.name}'"
        if c.verbs:
            once = f"-n '__fish_seen_subcommand_from {c.name}; and not " \
                   f"__fish_seen_subcommand_from {' '.join(c.verbs)}'"
            lines += [f"complete -c durablectl {once} -a {verb} -d {fish_text(text)}"
                      for verb, text in c.verbs.items()]
        if takes(c, FOLDERS):
            lines.append(f"complete -c durablectl {seen} -a '(__fish_complete_directories)'")
        elif takes(c, FILES):
            lines.append(f"complete -c durablectl {seen} -F")
        for o in c.options:
            value = ""
            if o.choices:
                value = f" -x -a '{' '.join(o.choices)}'"
            elif o.value in FOLDERS:
                value = " -x -a '(__fish_complete_directories)'"
            elif o.value in FILES:
                value = " -r -F"
            elif o.value:
                value = " -x"
            lines.append(f"complete -c durablectl {seen} -l {o.name[2:]}{value} "
                         f"-d {fish_text(o.text)}")
        lines.append(f"complete -c durablectl {seen} -l help -d 'what it does'")
    return lines + [""]


def main():
    shell, program, output = sys.argv[1:4]
    lines = {"bash": bash, "zsh": zsh, "fish": fish}[shell](commands.read(program))
    pathlib.Path(output).write_text("\n".join(lines), encoding="utf-8")


main()
