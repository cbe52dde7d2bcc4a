package main

import (
	"context"
	_ "embed"
	"strings"

	"github.com/rs/zerolog"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/guest"
	"xenferry/lib/host"
	"xenferry/lib/sim"
)

//go:embed doc.go
var doc string

func main() { cli.Main(doc, run) }

// commands are the words that xc-sim knows.
var commands = map[string]func(ctx context.Context, env *cli.Env) error{
	"serve":    serve,
	"create":   create,
	"list":     list,
	"pause":    each((*sim.Client).Pause),
	"unpause":  each((*sim.Client).Unpause),
	"resume":   each((*sim.Client).Resume),
	"destroy":  each((*sim.Client).Destroy),
	"suspend":  each(suspend),
	"shutdown": shutdown,
	"check":    check,
	"dump":     dump,
}

// run hands the command line behind the command's word to it.
func run(ctx context.Context, env *cli.Env) error {
	if len(env.Args) == 0 {
		return cli.Usagef("a command is needed")
	}
	word := env.Args[0]
	command := commands[word]
	if command == nil {
		if strings.HasPrefix(word, "-") {
			_, err := cli.Parse(cli.Flags(env), env.Args)
			return err
		}
		return cli.Usagef("no command %q", word)
	}
	env.Args, env.Log = env.Args[1:], env.Log.Level(zerolog.InfoLevel)
	return command(ctx, env)
}

// open connects to the simulated host that the --host option names.
func open(ctx context.Context, env *cli.Env, name string) (*sim.Client, error) {
	h, err := host.Open(ctx, name, env.Log)
	if err != nil {
		return nil, err
	}
	c, ok := h.(*sim.Client)
	if !ok {
		h.Close()
		return nil, cli.Usagef("this host is real: want --host sim:SOCKET")
	}
	return c, nil
}

// one finds the one domain that words name.
func one(ctx context.Context, c *sim.Client, words []string) (guest.Info, error) {
	if len(words) != 1 {
		return guest.Info{}, cli.Usagef("one DOMAIN is needed, %d words are there", len(words))
	}
	return direct.Find(ctx, c, words[0])
}

// none refuses words where only options may be.
func none(words []string) error {
	if len(words) != 0 {
		return cli.Usagef("unexpected %q", words[0])
	}
	return nil
}
