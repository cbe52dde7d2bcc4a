package main

import (
	"context"
	_ "embed"
	"os"

	"xenferry/lib/cli"
	"xenferry/lib/guard"
)

//go:embed doc.go
var doc string

func main() {
	if guard.IsGuardian(os.Args) {
		cli.Main(doc, watch)
	}
	cli.Main(doc, run)
}

// commands are the words that may follow the program's name.
var commands = map[string]func(ctx context.Context, env *cli.Env, args []string) error{
	"unwrap":  unwrap,
	"wrap":    wrap,
	"save":    save,
	"restore": restore,
	"send":    send,
	"receive": receive,
	"recover": recovery,
	"tls":     encrypt,
}

func run(ctx context.Context, env *cli.Env) error {
	flags := cli.Flags(env)
	flags.SetInterspersed(false)
	words, err := cli.Parse(flags, env.Args)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return cli.Usagef("no command")
	}
	command, ok := commands[words[0]]
	if !ok {
		return cli.Usagef("no such command: %s", words[0])
	}
	return command(ctx, env, words[1:])
}
