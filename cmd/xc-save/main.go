package main

import (
	"context"
	_ "embed"
	"os"

	"xenferry/lib/cli"
	"xenferry/lib/direct"
	"xenferry/lib/dropin"
	"xenferry/lib/guard"
)

//go:embed doc.go
var doc string

func main() {
	if guard.IsGuardian(os.Args) {
		cli.Main(doc, direct.Watch)
	}
	if dropin.Called(os.Args[1:]) {
		cli.Main(doc, dropin.Run)
	}
	cli.Main(doc, run)
}

func run(ctx context.Context, env *cli.Env) error {
	opt, err := parse(env)
	if err != nil {
		return err
	}
	return opt.run(ctx, env)
}
