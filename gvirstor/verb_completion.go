package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

func completionCommand() *command {
	return &command{
		name:     "completion",
		brief:    "Prints what a shell completes verbs and options by",
		operands: "bash | zsh | fish | tcsh",
		run:      func(_ context.Context, c *call) error { return c.completion() },
		about: `Prints what has a shell complete the verbs of this program, their options, the
names of volumes in service, and files. In its start-up file:

bash        source <(gvirstor completion bash)
zsh         source <(gvirstor completion zsh), after compinit
fish        gvirstor completion fish | source
tcsh        eval "` + "`gvirstor completion tcsh`" + `"`,
		example: "gvirstor completion bash",
	}
}

func (c *call) completion() error {
	if len(c.operands) != 1 {
		return c.wrongNumber()
	}
	shells := map[string]func() string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion, "tcsh": tcshCompletion}
	script, ok := shells[c.operands[0]]
	if !ok {
		return failf("There is no completion for %s; bash, zsh, fish and tcsh have one", c.operands[0])
	}
	fmt.Fprint(c.stdout, script())
	return nil
}

// verbNames are those of all verbs, in the order of the alphabet.
func verbNames() []string {
	var names []string
	for _, cmd := range commands() {
		names = append(names, cmd.name)
	}
	slices.Sort(names)
	return names
}

// optionNames are the options of a verb, as they are typed.
func (cmd *command) optionNames() []string {
	names := []string{"--help", "--control"}
	declare(cmd, &call{}).set.VisitAll(func(f *pflag.Flag) {
		if f.Shorthand != "" {
			names = append(names, "-"+f.Shorthand)
		}
		names = append(names, "--"+f.Name)
	})
	slices.Sort(names)
	return names
}

// volumesNow prints the names of the volumes in service, a line each, in any of the shells.
const volumesNow = program + " status -sp -o name 2>/dev/null"

func bashCompletion() string {
	var b strings.Builder
	fmt.Fprintf(&b, `_gvirstor() {
	local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} options
	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W %q -- "$word"))
		return
	fi
	case $verb in
`, strings.Join(verbNames(), " "))
	for _, cmd := range commands() {
		fmt.Fprintf(&b, "\t%s) options=%q ;;\n", cmd.name, strings.Join(cmd.optionNames(), " "))
	}
	fmt.Fprintf(&b, `	esac
	case $word in
	-*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
	*) COMPREPLY=($(compgen -W "$(%s)" -- "$word") $(compgen -f -- "$word")) ;;
	esac
}
complete -o filenames -F _gvirstor gvirstor uvirstor
`, volumesNow)
	return b.String()
}

func zshCompletion() string {
	var b strings.Builder
	b.WriteString("#compdef gvirstor uvirstor\n_gvirstor() {\n\tlocal -a verbs options volumes\n\tverbs=(\n")
	for _, cmd := range commands() {
		fmt.Fprintf(&b, "\t\t%s\n", singleQuoted(cmd.name+":"+cmd.brief))
	}
	b.WriteString("\t)\n\tif (( CURRENT == 2 )); then\n\t\t_describe verb verbs\n\t\treturn\n\tfi\n\tcase $words[2] in\n")
	for _, cmd := range commands() {
		fmt.Fprintf(&b, "\t%s) options=(%s) ;;\n", cmd.name, strings.Join(cmd.optionNames(), " "))
	}
	fmt.Fprintf(&b, `	esac
	if [[ $words[CURRENT] == -* ]]; then
		compadd -- $options
		return
	fi
	volumes=(${(f)"$(%s)"})
	compadd -- $volumes
	_files
}
# A file that zsh found by itself is this function, at its first call.
if [[ ${funcstack[1]} == _gvirstor ]]; then
	_gvirstor "$@"
else
	compdef _gvirstor gvirstor uvirstor
fi
`, volumesNow)
	return b.String()
}

func fishCompletion() string {
	var b strings.Builder
	fmt.Fprintf(&b, "complete -c gvirstor -n __fish_use_subcommand -f\n")
	for _, cmd := range commands() {
		fmt.Fprintf(&b, "complete -c gvirstor -n __fish_use_subcommand -a %s -d %s\n", cmd.name, singleQuoted(cmd.brief))
		for _, option := range cmd.optionNames() {
			kind, name := "-s", strings.TrimPrefix(option, "-")
			if long, is := strings.CutPrefix(option, "--"); is {
				kind, name = "-l", long
			}
			fmt.Fprintf(&b, "complete -c gvirstor -n '__fish_seen_subcommand_from %s' %s %s\n", cmd.name, kind, name)
		}
	}
	fmt.Fprintf(&b, "complete -c gvirstor -n 'not __fish_use_subcommand' -a '(%s)'\n", volumesNow)
	b.WriteString("complete -c uvirstor -w gvirstor\n")
	return b.String()
}

// tcshCompletion completes the options of all verbs after each: tcsh(1) cannot tell which
// verb a word belongs to.
func tcshCompletion() string {
	var options []string
	for _, cmd := range commands() {
		for _, option := range cmd.optionNames() {
			if name, long := strings.CutPrefix(option, "--"); long && !slices.Contains(options, name) {
				options = append(options, name)
			}
		}
	}
	slices.Sort(options)
	return fmt.Sprintf("complete gvirstor 'p/1/(%s)/' 'c/--/(%s)/' 'n/*/f/'\n", strings.Join(verbNames(), " "), strings.Join(options, " "))
}

// singleQuoted is a text as one word of a shell.
func singleQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
