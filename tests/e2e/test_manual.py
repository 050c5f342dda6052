# SPDX-License-Identifier: Apache-2.0
"""The manual and the shells' completions say what the programs do."""

import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import daemon

sys.path.insert(0, os.path.join(daemon.TOP, "tui"))
sys.dont_write_bytecode = True
import commands  # noqa: E402

PAGES = os.path.join(daemon.BUILD, "docs", "man")
COMPLETIONS = os.path.join(daemon.BUILD, "tui", "completions")
DURABLED = os.path.join(daemon.BUILD, "daemon", "durabled")


def plain(page):
    """A page as words, without hyphens at the ends of lines and without spaces twice."""
    text = pathlib.Path(PAGES, page).read_text(encoding="utf-8")
    text = re.sub(r"\\f[BIR]", "", text)
    for escape, meant in (("\\-", "-"), ("\\(aq", "'"), ("\\(ga", "`"), ("\\&", ""),
                          ("\\(ti", "~"), ("\\(ha", "^"), ("\\e", "\\")):
        text = text.replace(escape, meant)
    return " ".join(text.split())


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


class Manual(unittest.TestCase):
    @needs("man")
    def test_man_reads_each_page_without_a_warning(self):
        pages = glob.glob(PAGES + "/*.[158]")
        self.assertGreaterEqual(len(pages), 5)
        for page in pages:
            done = subprocess.run(["man", "--warnings", "-l", "-Tutf8", page], text=True,
                                  capture_output=True, check=False,
                                  env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80"))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stderr, "", page)
            self.assertGreater(len(done.stdout), 500, page)

    def test_no_mark_of_a_template_is_left(self):
        for page in glob.glob(PAGES + "/*.[158]"):
            text = pathlib.Path(page).read_text(encoding="utf-8")
            self.assertNotRegex(text, r"@[A-Z]+@|@SECTION|\*\*|\]\(")

    def test_the_page_of_durabled_has_each_of_its_options(self):
        said = subprocess.run([DURABLED, "--help"], check=True, capture_output=True, text=True)
        options = set(re.findall(r"--[a-z][a-z-]*", said.stdout))
        self.assertIn("--cut-at-damage", options)
        page = plain("durabled.8")
        self.assertEqual({option for option in options if option not in page}, set())
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page))
        self.assertEqual(named - options, set(), "options that the program does not know")

    def test_the_page_of_durablectl_has_each_command_option_and_example(self):
        page = plain("durablectl.1")
        table = commands.read(daemon.DURABLECTL)
        self.assertIn("objects", [command.name for command in table])
        for command in table:
            self.assertIn(f"durablectl {command.name} {command.arguments}", page)
            for option in command.options:
                self.assertIn(option.name, page)
            for kind, block in command.blocks:
                for line in block if kind != "items" else []:
                    self.assertIn(" ".join(line.split()), page)

    def test_each_setting_and_each_key_has_its_place(self):
        for page, source in (("durabled.conf.5", "configuration.md"),
                             ("wrangler.jsonc.5", "compatibility.md")):
            text = plain(page)
            source = pathlib.Path(daemon.TOP, "docs", source).read_text(encoding="utf-8")
            rows = re.findall(r"^\| `([^`]+)` \|.*\| (.*) \|$", source, re.M)
            self.assertGreater(len(rows), 20)
            for key, meaning in rows:
                self.assertIn(f"{key} (", text)
                words = re.sub(r"`|\*\*|\[([^\]]*)\]\([^)]*\)", r"\1", meaning)
                self.assertIn(" ".join(words.split()), text)


class Completions(unittest.TestCase):
    """What a shell itself offers, against the program's table."""

    @classmethod
    def setUpClass(cls):
        cls.table = commands.read(daemon.DURABLECTL)
        cls.names = {command.name for command in cls.table} | {"help"}

    def compare(self, complete):
        """complete(words) -> what may stand for the last of them."""
        offered = complete(["durablectl", ""])
        self.assertEqual({word for word in offered if not word.startswith("-")}, self.names)
        for command in self.table:
            offered = complete(["durablectl", command.name, "--"])
            wanted = {option.name for option in command.options} | {"--help"}
            self.assertEqual(offered, wanted, command.name)
            if command.verbs:
                offered = complete(["durablectl", command.name, ""])
                self.assertLessEqual(set(command.verbs), offered)
        self.assertEqual(complete(["durablectl", "dev", "--steering", ""]),
                         {"auto", "address", "late", "off"})
        self.assertEqual(complete(["durablectl", "re"]), {"reload"})

    @needs("bash")
    def test_bash_offers_what_the_program_knows(self):
        script = f"""
            source {COMPLETIONS}/durablectl
            compopt() {{ :; }}
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _durablectl durablectl "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """

        def complete(words):
            done = subprocess.run(["bash", "--norc", "-c", script, "bash", *words], text=True,
                                  capture_output=True, check=True, cwd="/")
            self.assertEqual(done.stderr, "")
            return set(done.stdout.split())

        self.compare(complete)

    @needs("fish")
    def test_fish_offers_what_the_program_knows(self):
        with tempfile.TemporaryDirectory() as home:
            def complete(words):
                line = " ".join(words)
                done = subprocess.run(
                    ["fish", "--no-config", "-c", f"source {COMPLETIONS}/durablectl.fish; "
                     f"complete -C '{line}'"], capture_output=True, check=True, text=True, cwd=home,
                    env=dict(os.environ, HOME=home, PATH=os.path.dirname(daemon.DURABLECTL) + ":"
                             + os.environ["PATH"]))
                return {offer.split("\t")[0] for offer in done.stdout.splitlines()}

            self.compare(complete)

    @needs("zsh")
    def test_zsh_offers_what_the_program_knows(self):
        """In a terminal of its own: zsh completes nowhere else. Captures what compadd is given."""
        with tempfile.TemporaryDirectory() as home:
            def complete(words):
                script = f"""
                    zmodload zsh/zpty
                    zpty z 'PS1= TERM=dumb zsh -f -i'
                    zpty -w z 'PS1=; fpath=({COMPLETIONS} $fpath); autoload -U compinit'
                    zpty -w z 'compinit -u -d {home}/dump; bindkey "^I" complete-word'
                    zpty -w z 'compadd() {{
                        if [[ ${{@[(I)-(O|A|D)*]}} -gt 0 ]]; then builtin compadd "$@"; return; fi
                        local -a found; builtin compadd -O found "$@"
                        print -l -- ${{(@)found}} >>{home}/offers; builtin compadd "$@" }}'
                    zpty -w z 'zle -K; : >{home}/offers; print ready'
                    zpty -r z out '*ready*'
                    zpty -w -n z "$1"$'\\t'
                    sleep 0.5
                    zpty -d z
                """
                pathlib.Path(home, "offers").write_text("", encoding="utf-8")
                subprocess.run(["zsh", "-f", "-c", script, "zsh", " ".join(words)], check=True,
                               capture_output=True, cwd=home, timeout=30,
                               env=dict(os.environ, HOME=home))
                return set(pathlib.Path(home, "offers").read_text(encoding="utf-8").split())

            self.compare(complete)


if __name__ == "__main__":
    unittest.main()
