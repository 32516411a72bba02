"""The command that teaches a shell to complete dscache's words: completion.

The script of a shell hands over the line up to the cursor, and gets a line for each way to go on:
its kind, the word, and what it means. Click knows the commands and options. Its own scripts hand
over words as bash breaks them, at an `@` too, which stands in the names of versions.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    split_arg_string,
)

from dscache.cli import say
from dscache.cli.options import common
from dscache.sheets import printable

_HELP = 80

# Where `@` and `=` break words, bash replaces only what stands behind the last `=`, or what begins
# with the last `@`. Errors have no place on a line that is being typed.
_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" word cut="" kind value
    word="${line##*[[:space:]]}"
    if [[ $word != [\\"\\']* ]]; then
        [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && cut="${word%%=*}="
        [[ $COMP_WORDBREAKS == *@* && $word == *@* ]] && cut="${word%%@*}"
    fi
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("${value#"$cut"}") ;;
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
        esac
    done < <(env COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a names described
    local kind value meaning
    while IFS=$'\\t' read -r kind value meaning; do
        case $kind in
            plain)
                if [[ -n $meaning ]]; then
                    described+=("${value//:/\\\\:}:$meaning")
                else
                    names+=("$value")
                fi ;;
            dir) _path_files -/ ;;
            file) _path_files ;;
        esac
    done < <(COMP_WORDS="${(j: :)words[1,CURRENT-1]} $PREFIX" \\
        %(complete_var)s=zsh_complete ${~${(Q)words[1]}} 2>/dev/null)
    (( $#described )) && _describe '' described
    (( $#names )) && compadd -a names
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l line (commandline -cp | string collect)
    for each in (env COMP_WORDS="$line" %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null)
        set -l parts (string split \\t -- $each)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                printf '%%s\\t%%s\\n' $parts[2] "$parts[3]"
        end
    end
end
complete --no-files --command %(prog_name)s --arguments '(%(complete_func)s)'
"""


class _Script(ShellComplete):
    """What a shell and dscache say to each other."""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)
        is_new = not words or line[-1:].isspace()
        return (words[1:], "") if is_new else (words[1:-1], words[-1])

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        found = super().get_completions(args, incomplete)
        if incomplete.startswith("--") and "=" in incomplete:
            option = incomplete.partition("=")[0]
            found = [CompletionItem(f"{option}={each.value}", each.type) for each in found]
        return found

    def format_completion(self, item: CompletionItem) -> str:
        return "\t".join((item.type, item.value, printable(item.help or "")[:_HELP]))


class _Bash(_Script):
    name = "bash"
    source_template = _BASH

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{item.value}"


class _Zsh(_Script):
    name = "zsh"
    source_template = _ZSH


class _Fish(_Script):
    name = "fish"
    source_template = _FISH


SHELLS = {each.name: each for each in (_Bash, _Zsh, _Fish)}


def register() -> None:
    """Have these scripts take the place of click's own."""
    for each in SHELLS.values():
        add_completion_class(each)


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@common
@click.pass_context
def completion(ctx: click.Context, shell: str, cache_dir: str | None, as_json: bool) -> None:
    """Print what makes a shell complete commands, options and names of datasets.

    For bash, eval "$(dscache completion bash)" in ~/.bashrc turns it on.
    """
    script = SHELLS[shell](ctx.find_root().command, {}, "dscache", "_DSCACHE_COMPLETE").source()
    if as_json:
        say.document({"shell": shell, "script": script})
    else:
        click.echo(script, nl=False)


COMMANDS = {"completion": completion}
