package cli

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Expand completes shortened long options, as Python's optparse, which Xen's scripts use, understands them. A word that is
// an option's value is left alone even if it looks like an option. Errors are of usage.
func Expand(flags *pflag.FlagSet, args []string) ([]string, error) {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	args = slices.Clone(args)
	for i := 0; i < len(args); i++ {
		switch word := args[i]; {
		case word == "--":
			return args, nil
		case strings.HasPrefix(word, "--"):
			short, value, assigned := strings.Cut(word[2:], "=")
			name := short
			if flags.Lookup(short) == nil {
				var err error
				if name, err = complete(names, short); err != nil {
					return nil, err
				}
			}
			args[i] = "--" + name
			if assigned {
				args[i] += "=" + value
			} else if flags.Lookup(name).NoOptDefVal == "" {
				i++
			}
		case len(word) > 1 && word[0] == '-' && valueFollows(flags, word[1:]):
			i++
		}
	}
	return args, nil
}

// valueFollows reports whether the last of joined one-letter options has its value in the next word.
func valueFollows(flags *pflag.FlagSet, letters string) bool {
	for i := range letters {
		if f := flags.ShorthandLookup(letters[i : i+1]); f != nil && f.NoOptDefVal == "" {
			return i == len(letters)-1
		}
	}
	return false
}

// complete returns the one name that begins with short.
func complete(names []string, short string) (string, error) {
	var found []string
	for _, name := range names {
		if strings.HasPrefix(name, short) {
			found = append(found, "--"+name)
		}
	}
	switch len(found) {
	case 0:
		return "", Usagef("no such option: --%s", short)
	case 1:
		return found[0][2:], nil
	}
	return "", Usagef("ambiguous option: --%s (%s)", short, strings.Join(found, ", "))
}
